LIBS += lab
LIB_lab_SRCS := $(addprefix uml-lab/lab/,problem.c source.c tree.c syntax.c scalar.c scalar_net.c scalar_number.c \
	schema.c load.c place.c params.c check.c paths.c find.c write.c describe.c)
MANPAGES += uml-lab/lab/uml-lab-lab.5
