LIBS += cow
LIB_cow_SRCS := $(addprefix cow/,format.c file.c temp.c note.c digest.c create.c resolve.c chain.c io.c)
PROGRAMS += uml-cow
PROGRAM_uml-cow_SRCS := $(addprefix cow/,main.c cmd_common.c cmd_create.c cmd_info.c)
