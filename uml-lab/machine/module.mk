LIBS += machine
LIB_machine_SRCS := $(addprefix uml-lab/machine/,supervise.c launch.c uml_args.c disk_check.c sandbox.c boot.c console.c \
	relay.c spool.c control.c status.c daemon.c plug.c plug_ask.c plug_join.c networks.c disk.c deadline.c mconsole.c wire.c transfer.c client.c client_exec.c client_console.c client_copy.c \
	host_checks.c kernel.c kernel_release.c kernel_faults.c initramfs.c)
LIB_machine_SRCS += $(addprefix uml-lab/machine/,still.c placement.c disk_ask.c)
LIB_machine_SRCS += $(addprefix uml-lab/machine/,shares.c share_waits.c vhost_relay.c)
LIB_machine_SRCS += $(addprefix uml-lab/machine/,sandbox_keeper.c sandbox_root.c sandbox_program.c sandbox_ask.c elf.c cgroup.c)
MANPAGES += uml-lab/machine/uml-lab-security.7
