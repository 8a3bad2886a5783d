LIBS += network
LIB_network_SRCS := $(addprefix uml-lab/network/,keeper.c switch.c vlans.c folder.c)
MANPAGES += uml-lab/network/uml-lab-networks.7
