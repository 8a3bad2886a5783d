/*
 * What makes a learning vde_switch pass 802.1Q tags.
 *
 * A vde_switch knows VLANs itself: as it starts, it drops every tagged frame (vde2
 * 2.3.2 port.c: handle_in_packet(), ba_check(vlant[vlan].table, port)). A
 * lab's switch shall carry tags and leave them to the machines, so every port is a
 * tagged member of every VLAN, by the file of commands that a switch reads as it starts: 4093 VLANs
 * on 20 ports take it 0.2 s and 2 MB. A hub passes everything as it is.
 *
 * What a learning switch still changes: a frame with VLAN 0, which has a priority
 * only, leaves it without its tag; and VLAN 4094 does not pass.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/network/network_internal.h"

#define VLAN_LAST 4093	/* IEEE 802.1Q has one more, 4094, which vde_switch 2.3.2 does not create */

int network_vlan_commands(unsigned int ports, struct error *err)
{
	cleanup_close int fd = memfd_create("vde_switch.rc", MFD_CLOEXEC);
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	if (fd < 0)
		return error_errno(err, errno, "cannot make a file in memory");
	/* A port has to be there to be a member; those are not given out unless said. */
	for (unsigned int port = 1; port <= ports; port++)
		strbuf_printf(&text, "port/create %u\nport/allocatable %u 1\n", port, port);
	for (unsigned int vlan = 1; vlan <= VLAN_LAST; vlan++) {
		strbuf_printf(&text, "vlan/create %u\n", vlan);
		for (unsigned int port = 1; port <= ports; port++)
			strbuf_printf(&text, "vlan/addport %u %u\n", vlan, port);
	}
	if (strbuf_check(&text, err) < 0)
		return -1;
	if (file_write_full(fd, text.data, text.length) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return error_errno(err, errno, "cannot write a file in memory");
	return steal_fd(&fd);
}
