/* Sends frames on an interface without end, as fast as it can and without reading any: flood INTERFACE DESTINATION-MAC */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	unsigned char frame[1000] = {0};
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_halen = 6};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	unsigned int mac[6];

	if (argc < 3 || fd < 0 ||
	    sscanf(argv[2], "%x:%x:%x:%x:%x:%x", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]) != 6)
		return 1;
	to.sll_ifindex = (int)if_nametoindex(argv[1]);
	for (int i = 0; i < 6; i++)
		frame[i] = (unsigned char)mac[i];
	memcpy(frame + 6, "\x02\0\0\0\0\x0f", 6);
	frame[12] = 0x88;	/* IEEE 802: local experimental */
	frame[13] = 0xb5;
	for (;;)
		sendto(fd, frame, sizeof(frame), 0, (struct sockaddr *)&to, sizeof(to));
}
