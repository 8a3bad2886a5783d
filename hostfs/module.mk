LIBS += hostfs
LIB_hostfs_SRCS := $(addprefix hostfs/,acl.c attr.c confine.c control.c files.c folders.c ids.c kept.c locks.c mount.c names.c node.c quota.c request.c share.c \
	source.c virtiofs.c xattrs.c)
PROGRAMS += uml-hostfs
PROGRAM_uml-hostfs_SRCS := hostfs/main.c
MANPAGES += hostfs/uml-hostfs.1
