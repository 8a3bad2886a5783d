# Tests. A unit test is a file tests/unit/test_NAME.c with its own main() (CUnit, through tests/unit/unit.h).
UNIT_TESTS := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
UNIT_BINS := $(addprefix $(B)/tests/,$(UNIT_TESTS))

$(B)/tests/%: $(B)/obj/tests/unit/%.o $(LIB_FILES)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(LDFLAGS) -o $@ $< -Wl,--as-needed -Wl,--start-group $(LIB_FILES) -Wl,--end-group $(PKG_LIBS) -lcunit -lpthread

.PHONY: unit-tests
.PRECIOUS: $(B)/obj/%.o
unit-tests: $(UNIT_BINS)

# What the shared test images are made of: tests/images keeps a cache by this.
$(B)/tests/image-recipe: $(wildcard uml-lab/image/*.[ch])
	@mkdir -p $(@D)
	@cat $^ | sha256sum > $@

# For tests/bench/disk.sh, see there.
$(B)/tests/disk-limit: $(B)/obj/tests/bench/disk-limit.o $(B)/libbase.a
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(LDFLAGS) -o $@ $^

# What tests/bench/run needs beside the programs.
.PHONY: bench-needs
bench-needs: $(B)/tests/image-recipe $(B)/tests/disk-limit
unit-tests: bench-needs

# Runs inside a guest that has no library of ours nor of anybody's.
$(B)/tests/cgroup_guest: $(B)/obj-static/tests/boot/cgroup_guest.o $(addprefix $(B)/obj-static/uml-lab/,machine/cgroup.o \
		base/str.o base/file.o base/error.o base/loop.o)
	@mkdir -p $(@D)
	@echo "  LD   $@ (static)"
	@$(CC) -static -Wl,--gc-sections -s -o $@ $^
unit-tests: $(B)/tests/cgroup_guest
