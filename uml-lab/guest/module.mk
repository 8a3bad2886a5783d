# What runs inside a guest: one static program, /init of the initramfs and the agent.
STATIC_PROGRAMS += stage0
PROGRAM_stage0_SRCS := $(addprefix uml-lab/guest/,stage0.c init.c agent.c agent_boot.c channel.c exec.c ready.c power.c \
	network.c settings.c mount.c modules.c config.c frame.c tar_read.c tar_write.c tar_unpack.c tar_pack.c guest.c)
