LIBS += submission
LIB_submission_SRCS := $(addprefix uml-lab/submission/,manifest.c pack.c reader.c child.c submit.c safe.c base.c open.c collect.c grade.c)
MANPAGES += uml-lab/submission/uml-lab-submission.5
