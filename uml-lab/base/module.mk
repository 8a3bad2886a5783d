LIBS += base
LIB_base_SRCS := $(addprefix uml-lab/base/,error.c str.c file.c loop.c child.c confine.c landlock.c log.c message.c vring.c patience.c beside.c vring_look.c vring_gather.c vhost_recall.c vhost_user.c \
	vhost_user_messages.c 	cli.c cli_man.c cli_table.c dirs.c)
