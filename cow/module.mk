LIBS += cow
LIB_cow_SRCS := $(addprefix cow/,format.c file.c temp.c create.c)
PROGRAMS += uml-cow
PROGRAM_uml-cow_SRCS := $(addprefix cow/,main.c cmd_create.c)
