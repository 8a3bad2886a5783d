LIBS += session
LIB_session_SRCS := $(addprefix uml-lab/session/,paths.c yaml.c store.c target.c prepare.c spec.c networks.c networks_status.c plan.c start.c stop.c \
	settle.c status.c reset.c supervise.c watch.c \
	checks.c checks_report.c last_check.c)
LIB_session_SRCS += $(addprefix uml-lab/session/,snapshot_yml.c layers.c snapshot.c snapshot_list.c diff.c gc.c snapshot_live.c)
LIB_session_SRCS += uml-lab/session/shares.c uml-lab/session/export.c uml-lab/session/adopt.c
