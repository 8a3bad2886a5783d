LIBS += netplug
LIB_netplug_SRCS := netplug/allow.c netplug/capture.c netplug/dhcp.c netplug/impair.c netplug/impair_text.c netplug/walls.c netplug/wheel.c \
	$(addprefix netplug/,control.c forward.c frame.c frames.c join.c link.c listen.c look.c offload.c owner.c plug.c port.c serve.c slirp.c \
	slirp_idle.c slirp_port.c stretch.c stretch_ahead.c stretch_copies.c \
	udp_forward.c vde.c vde_join.c vde_locator.c vnet.c vnet_join.c)
PROGRAMS += uml-netplug
PROGRAM_uml-netplug_SRCS := netplug/main.c
MANPAGES += netplug/uml-netplug.1
