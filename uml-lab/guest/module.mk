# What runs inside a guest: one static program, /init of the initramfs and the agent.
GUEST_SHARED := $(addprefix uml-lab/guest/,config.c frame.c tar_read.c tar_write.c tar_unpack.c tar_pack.c exec.c settings.c \
	mount.c modules.c guest.c)
STATIC_PROGRAMS += stage0
PROGRAM_stage0_SRCS := $(GUEST_SHARED) $(addprefix uml-lab/guest/,stage0.c init.c agent.c agent_boot.c channel.c ready.c \
	power.c pending.c network.c spool.c)

# The parts that unit tests, fuzzers and the boot test's host side use outside of a guest.
LIBS += guest
LIB_guest_SRCS := $(GUEST_SHARED)

# tests/boot/stage0-agent.sh: a host of its own for stage-0, without uml-lab's supervisor.
STAGE0_TEST_SRCS := tests/boot/stage0_test.c tests/boot/stage0_host.c
$(B)/tests/stage0_test: $$(call obj,$$(STAGE0_TEST_SRCS)) $$(LIB_FILES)
	@mkdir -p $(@D)
	@echo "  LD   $@"
	@$(CC) $(LDFLAGS) -o $@ $(call obj,$(STAGE0_TEST_SRCS)) -Wl,--as-needed -Wl,--start-group $(LIB_FILES) -Wl,--end-group $(PKG_LIBS)
unit-tests: $(B)/tests/stage0_test
