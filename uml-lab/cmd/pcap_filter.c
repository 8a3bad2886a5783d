/*
 * Filters in tcpdump's language, by libpcap's compiler and interpreter. The library is loaded when a filter is
 * given and not before: every supervisor is this program too, and shall stay small.
 */
#include <dlfcn.h>
#include <pcap/pcap.h>
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/pcapng.h"

#define SNAPLEN 65535

struct pcap_filter {
	void *library;
	pcap_t *pcap;
	struct bpf_program program;
	bool compiled;
	__typeof__(&pcap_open_dead) open_dead;
	__typeof__(&pcap_compile) compile;
	__typeof__(&pcap_geterr) geterr;
	__typeof__(&pcap_offline_filter) offline_filter;
	__typeof__(&pcap_freecode) freecode;
	__typeof__(&pcap_close) close;
};

static int load(struct pcap_filter *f, struct error *err)
{
	const struct {
		const char *name;
		void *address;
	} symbols[] = {{"pcap_open_dead", &f->open_dead}, {"pcap_compile", &f->compile}, {"pcap_geterr", &f->geterr},
		       {"pcap_offline_filter", &f->offline_filter}, {"pcap_freecode", &f->freecode}, {"pcap_close", &f->close}};

	f->library = dlopen("libpcap.so.0.8", RTLD_NOW | RTLD_LOCAL);
	if (!f->library)
		f->library = dlopen("libpcap.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!f->library) {
		error_set(err, ERROR_FAILED, "filters need libpcap, which is not there");
		return error_hint(err, "apt install libpcap0.8, or filter what is captured with tshark");
	}
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		*(void **)symbols[i].address = dlsym(f->library, symbols[i].name);
		if (!*(void **)symbols[i].address)
			return error_set(err, ERROR_FAILED, "libpcap lacks %s", symbols[i].name);
	}
	return 0;
}

struct pcap_filter *pcap_filter_new(const char *expression, struct error *err)
{
	struct pcap_filter *f = calloc(1, sizeof(*f));

	if (!f) {
		error_oom(err);
		return NULL;
	}
	if (load(f, err) == 0) {
		f->pcap = f->open_dead(DLT_EN10MB, SNAPLEN);
		if (!f->pcap)
			error_oom(err);
		else if (f->compile(f->pcap, &f->program, expression, 1, PCAP_NETMASK_UNKNOWN) == 0)
			f->compiled = true;
		else
			error_set(err, ERROR_USAGE, "filter '%s': %s", expression, f->geterr(f->pcap));
	}
	if (f->compiled)
		return f;
	pcap_filter_free(f);
	return NULL;
}

bool pcap_filter_passes(const struct pcap_filter *f, const uint8_t *data, uint32_t captured, uint32_t length)
{
	const struct pcap_pkthdr header = {.caplen = captured, .len = length};

	return f->offline_filter(&f->program, &header, data);
}

void pcap_filter_free(struct pcap_filter *f)
{
	if (!f)
		return;
	if (f->compiled)
		f->freecode(&f->program);
	if (f->pcap)
		f->close(f->pcap);
	if (f->library)
		dlclose(f->library);
	free(f);
}
