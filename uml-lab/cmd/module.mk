PROGRAMS += uml-lab
PROGRAM_uml-lab_SRCS := $(addprefix uml-lab/cmd/,main.c check.c common.c progress.c completion.c console.c copy.c doctor.c down.c \
	exec.c image.c list.c log.c man.c reset.c restart.c schema.c shell.c status.c supervise.c target.c up.c validate.c)
PROGRAM_uml-lab_SRCS += $(addprefix uml-lab/cmd/,capture.c disk.c forward.c net.c pcap_filter.c pcapng.c)
PROGRAM_uml-lab_SRCS += uml-lab/cmd/snapshot.c uml-lab/cmd/networks.c

# uml-lab(1) is written by the program itself.
$(B)/uml-lab.1: $(B)/uml-lab
	@$< __man > $@
all: $(B)/uml-lab.1
MANPAGES += $(B)/uml-lab.1

PROGRAM_uml-lab_SRCS += $(addprefix uml-lab/cmd/,diff.c publish.c gc.c)
PROGRAM_uml-lab_SRCS += $(addprefix uml-lab/cmd/,submit.c open.c collect.c read_submission.c)
