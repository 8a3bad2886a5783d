# Read after the Makefile by tests/fuzz/run, which sets B, CC, CFLAGS and LDFLAGS: all libraries and one program for each entry.
FUZZ_ENTRIES := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*fuzz*.c))

# Sources that an entry needs and no library has.
FUZZ_SRCS_fuzz_agent := uml-lab/guest/exec.c

$(B)/bin/%: $(B)/obj/tests/fuzz/%.o $$(call obj,$$(FUZZ_SRCS_%)) $(LIB_FILES)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--as-needed -Wl,--start-group $(LIB_FILES) -Wl,--end-group $(PKG_LIBS) -lpthread

.PHONY: fuzz-entries
fuzz-entries: $(addprefix $(B)/bin/,$(FUZZ_ENTRIES))
