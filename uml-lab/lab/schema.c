/*
 * The one table of lab.yml. The loader, the writer of the effective lab, the
 * JSON Schema and the reference page all come from it; a new field is a line
 * here and a member in lab.h (and, when it must agree with other fields, a
 * check in check.c).
 *
 * Offsets are those of the struct that the object fills: struct lab for the
 * file as a whole, struct lab_machine for a machine, and so on. Two objects
 * have no struct of their own: `expect` fills its check, a list of strings
 * fills a struct strv.
 */
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

#define MIB  (INT64_C(1) << 20)
#define GIB  (INT64_C(1) << 30)
#define TIB  (INT64_C(1) << 40)
#define HOUR (INT64_C(3600) * 1000)

#define LIST_AT(type, items, number) .offset = offsetof(type, items), .count_offset = offsetof(type, number)
#define STRV_AT(type, member)                                                                                \
	.offset = offsetof(type, member.items), .count_offset = offsetof(type, member.count)

static const struct object param_object = {
	.name = "param",
	.help = "Names for texts that differ between students or runs. {{name}} in any value stands for the "
		"text; {{user}} is the student's login name, {{random:N}} are N random letters and digits. "
		"\\{{ stands for two braces that are meant as they are. A parameter may use those above it.",
	.scalar = &(const struct field){.key = "",
					.type = &scalar_param,
					.offset = offsetof(struct lab_param, value),
					.example = "\"{{random:8}}\""},
	.size = sizeof(struct lab_param),
	.name_offset = offsetof(struct lab_param, name),
	.mark_offset = NO_OFFSET};

/* What is wrong with a line: of a network, and of one interface. */
#define TRAFFIC_FIELDS(type_)                                                                                \
	{.key = "rate",                                                                                      \
	 .type = &scalar_rate,                                                                               \
	 .offset = offsetof(type_, traffic.rate),                                                            \
	 .help = "The most an interface sends, in bits a second; K, M and G are thousands.",                 \
	 .example = "10M"},                                                                                  \
		{.key = "delay",                                                                             \
		 .type = &scalar_interval,                                                                   \
		 .offset = offsetof(type_, traffic.delay),                                                   \
		 .max = 60000,                                                                               \
		 .help = "How much later each frame arrives.",                                               \
		 .example = "50ms"},                                                                         \
		{.key = "jitter",                                                                            \
		 .type = &scalar_interval,                                                                   \
		 .offset = offsetof(type_, traffic.jitter),                                                  \
		 .max = 60000,                                                                               \
		 .help = "By how much the delay varies, up and down.",                                       \
		 .example = "5ms"},                                                                          \
		{.key = "loss",                                                                              \
		 .type = &scalar_loss,                                                                       \
		 .offset = offsetof(type_, traffic.loss),                                                    \
		 .help = "The share of frames that are lost.",                                               \
		 .example = "2%"},                                                                           \
		{.key = "duplicate",                                                                         \
		 .type = &scalar_loss,                                                                       \
		 .offset = offsetof(type_, traffic.duplicate),                                               \
		 .help = "The share of frames that arrive twice.",                                           \
		 .example = "1%"},                                                                           \
		{.key = "reorder",                                                                           \
		 .type = &scalar_loss,                                                                       \
		 .offset = offsetof(type_, traffic.reorder),                                                 \
		 .help = "The share of frames that arrive 10 ms late, behind those sent after them.",        \
		 .example = "1%"},                                                                           \
	{                                                                                                    \
		.key = "down", .type = &scalar_bool, .offset = offsetof(type_, traffic.down),                \
		.fallback = "false",                                                                         \
		.help = "The cable is pulled: nothing passes until uml-lab net --up."                        \
	}

static const struct field network_fields[] = {
	{.key = "switch",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_network, learning_switch),
	 .fallback = "false",
	 .help = "A learning switch; otherwise a hub, where every machine sees every frame."},
	{.key = "vde",
	 .type = &scalar_line,
	 .offset = offsetof(struct lab_network, vde),
	 .help = "A VDE locator to join instead of a network of our own.",
	 .example = "\"vxvde://239.1.2.3\""},
	{.key = "port-security",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_network, port_security),
	 .fallback = "false",
	 .help = "Frames that a machine sends from another MAC address than its interface's own are dropped."},
	TRAFFIC_FIELDS(struct lab_network),
	{0}};

static const struct object network_object = {.name = "network",
					     .help = "A collision domain between machines.",
					     .fields = network_fields,
					     .size = sizeof(struct lab_network),
					     .name_offset = offsetof(struct lab_network, name),
					     .mark_offset = offsetof(struct lab_network, mark),
					     .host_name = true};

static const struct field disk_fields[] = {
	{.key = "size",
	 .type = &scalar_size,
	 .flags = FIELD_REQUIRED,
	 .offset = offsetof(struct lab_disk, size),
	 .min = MIB,
	 .max = 8 * TIB,
	 .help = "The size of the disk; it takes room on the host as it is written.",
	 .example = "1G"},
	{.key = "ejected",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_disk, ejected),
	 .fallback = "false",
	 .help = "The disk is not in the machine when it starts; uml-lab disk puts it in."},
	{0}};

static const struct object disk_object = {.name = "disk",
					  .help = "An extra disk, empty at first.",
					  .fields = disk_fields,
					  .size = sizeof(struct lab_disk),
					  .mark_offset = offsetof(struct lab_disk, mark)};

static const struct field interface_fields[] = {
	{.key = "network",
	 .type = &scalar_line,
	 .offset = offsetof(struct lab_interface, network),
	 .help = "The network it is plugged into, one of those under networks. Each interface has either "
		 "this or slirp.",
	 .example = "lan-a"},
	{.key = "slirp",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_interface, slirp),
	 .fallback = "false",
	 .help = "Joins the outside through the host, with DHCP and DNS, and without any privilege."},
	{.key = "address",
	 .kind = FIELD_LIST,
	 .type = &scalar_address,
	 .max_count = 32,
	 LIST_AT(struct lab_interface, addresses, address_count),
	 .help = "The address, or a list of them. With none, slirp asks DHCP and a network leaves it to the "
		 "student.",
	 .example = "10.0.1.1/24"},
	{.key = "mac",
	 .type = &scalar_mac,
	 .offset = offsetof(struct lab_interface, mac),
	 .fallback = "auto",
	 .help = "The MAC address; auto makes one of session, machine and interface that stays the same."},
	{.key = "mtu",
	 .type = &scalar_int,
	 .offset = offsetof(struct lab_interface, mtu),
	 .min = 576,
	 .max = 65521,
	 .help = "The largest packet in bytes; left out, what works best. With slirp, at least 1280.",
	 .example = "1500"},
	{.key = "transport",
	 .type = &scalar_word,
	 .offset = offsetof(struct lab_interface, transport),
	 .choices = "auto|bess|vhost-user",
	 .fallback = "auto",
	 .help = "How the kernel is connected: vhost-user is a virtio network device with checksum and segmentation "
		 "offload, bess UML's own vector transport. auto takes vhost-user where the kernel has the module "
		 "virtio_net."},
	{.key = "forward",
	 .kind = FIELD_LIST,
	 .type = &scalar_forward,
	 .max_count = 64,
	 LIST_AT(struct lab_interface, forwards, forward_count),
	 .help = "Ports of the host that lead into the machine (slirp only). Unless an address is given, "
		 "only programs on the host itself can reach them; auto takes a free port, which status "
		 "tells.",
	 .example = "[\"8080:80\", \"5353:53/udp\"]"},
	{.key = "host",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_interface, host),
	 .fallback = "false",
	 .help = "The machine reaches servers on the host's loopback as 10.0.2.2 (slirp only)."},
	{.key = "restrict",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_interface, restricted),
	 .fallback = "false",
	 .help = "Nothing outside can be reached, for exams; forwards work (slirp only)."},
	{.key = "allow",
	 .kind = FIELD_LIST,
	 .type = &scalar_destination,
	 .max_count = 64,
	 STRV_AT(struct lab_interface, allow),
	 .help = "What may still be reached with restrict: ADDRESS[/BITS][:PORT[/udp]]. Names need 10.0.2.3:53/udp.",
	 .example = "[\"192.0.2.10:443\"]"},
	TRAFFIC_FIELDS(struct lab_interface),
	{0}};

static const struct object interface_object = {
	.name = "interface",
	.help = "A network interface: eth0, eth1, … in the order of the file.",
	.fields = interface_fields,
	.size = sizeof(struct lab_interface),
	.mark_offset = offsetof(struct lab_interface, mark)};

static const struct field machine_fields[] = {
	{.key = "base",
	 .type = &scalar_image,
	 .offset = offsetof(struct lab_machine, base),
	 .help = "The base image of this machine; left out, that of the lab.",
	 .example = "debian-12"},
	{.key = "kernel",
	 .type = &scalar_kernel,
	 .offset = offsetof(struct lab_machine, kernel),
	 .fallback = "auto",
	 .help = "The UML kernel: the best one there is, a version, or a path.",
	 .example = "6.12"},
	{.key = "kernel_args",
	 .kind = FIELD_LIST,
	 .type = &scalar_line,
	 .max_count = 32,
	 STRV_AT(struct lab_machine, kernel_args),
	 .help = "Further words for the kernel's command line. Kernels of machines with fewer than three extra disks start "
		 "without RAID-6, whose measuring takes most of a boot; initcall_blacklist=none brings it back.",
	 .example = "[quiet]"},
	{.key = "memory",
	 .type = &scalar_size,
	 .offset = offsetof(struct lab_machine, memory),
	 .fallback = "128M",
	 .min = 32 * MIB,
	 .max = 256 * GIB,
	 .min_reason = "a UML kernel needs 32M to boot",
	 .help = "The machine's memory. A UML kernel needs 32M to boot."},
	{.key = "disk",
	 .type = &scalar_word,
	 .offset = offsetof(struct lab_machine, disk_driver),
	 .choices = "auto|ubd",
	 .fallback = "auto",
	 .help = "How the disks are attached. auto: by a disk server of our own, which stacks layers, keeps what the guest has "
		 "synced, and keeps limits.disk. ubd: by the kernel's own driver, which does none of that, and can read "
		 "wrong data after writes of less than 4 KiB."},
	{.key = "disks",
	 .kind = FIELD_LIST,
	 .object = &disk_object,
	 .max_count = LAB_DISKS_MAX,
	 LIST_AT(struct lab_machine, disks, disk_count),
	 .help = "Extra disks, empty at first: /dev/vdb, /dev/vdc and so on (ubdb, ubdc with disk: ubd).",
	 .example = "[{size: 1G}, {size: 1G}]"},
	{.key = "interfaces",
	 .kind = FIELD_LIST,
	 .object = &interface_object,
	 .max_count = LAB_INTERFACES_MAX,
	 LIST_AT(struct lab_machine, interfaces, interface_count),
	 .help = "Network interfaces, eth0 first.",
	 .example = "[{network: lan-a, address: 10.0.1.1/24}]"},
	{.key = "shares",
	 .kind = FIELD_LIST,
	 .type = &scalar_line,
	 .max_count = 32,
	 STRV_AT(struct lab_machine, shares),
	 .help = "The shares this machine mounts, of those under shares.",
	 .example = "[handout]"},
	{.key = "files",
	 .type = &scalar_line,
	 .offset = offsetof(struct lab_machine, files),
	 .help = "A folder of the lab that is copied over / on the first start, owned by root.",
	 .example = "r1/"},
	{.key = "setup",
	 .type = &scalar_text,
	 .offset = offsetof(struct lab_machine, setup),
	 .help = "A shell script for the first start only."},
	{.key = "startup",
	 .type = &scalar_text,
	 .offset = offsetof(struct lab_machine, startup),
	 .help = "A shell script for every start."},
	{.key = "restart",
	 .type = &scalar_choice,
	 .offset = offsetof(struct lab_machine, restart),
	 .choices = "no|on-failure|always",
	 .fallback = "no",
	 .help = "When a machine that ended is started again."},
	{0}};
_Static_assert(sizeof(enum lab_restart) == sizeof(int), "scalar_choice stores an int");

static const struct object machine_object = {.name = "machine",
					     .help = "A machine. All of its keys may be left out: `m1: {}`.",
					     .fields = machine_fields,
					     .size = sizeof(struct lab_machine),
					     .name_offset = offsetof(struct lab_machine, name),
					     .mark_offset = offsetof(struct lab_machine, mark),
					     .host_name = true};

static const struct field share_fields[] = {
	{.key = "path",
	 .type = &scalar_line,
	 .flags = FIELD_REQUIRED,
	 .offset = offsetof(struct lab_share, path),
	 .help = "The folder on the host: within the lab's folder, below ~/, or absolute.",
	 .example = "handout"},
	{.key = "mode",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_share, writable),
	 .choices = "ro|rw",
	 .fallback = "ro",
	 .help = "Whether machines may only read it, or write too."},
	{.key = "locks",
	 .type = &scalar_bool,
	 .offset = offsetof(struct lab_share, shared_locks),
	 .choices = "local|shared",
	 .fallback = "local",
	 .help = "Whether locks of programs (fcntl, flock) hold within one machine, or between machines and the host too "
		 "(with mode: rw), which makes small files about half as fast."},
	{.key = "owner",
	 .type = &scalar_owner,
	 .offset = offsetof(struct lab_share, owner),
	 .fallback = "root",
	 .help = "Who owns its files inside, unless a machine changed that."},
	{.key = "quota",
	 .type = &scalar_size,
	 .offset = offsetof(struct lab_share, quota),
	 .min = MIB,
	 .max = 8 * TIB,
	 .help = "The most its files may take (with mode: rw).",
	 .example = "200M"},
	{.key = "max_file_size",
	 .type = &scalar_size,
	 .offset = offsetof(struct lab_share, max_file_size),
	 .min = 1,
	 .max = 8 * TIB,
	 .help = "The most that one file may hold (with mode: rw).",
	 .example = "50M"},
	{.key = "hide",
	 .kind = FIELD_LIST,
	 .type = &scalar_line,
	 .max_count = 64,
	 STRV_AT(struct lab_share, hide),
	 .help = "Patterns of names that machines neither see nor make, anywhere in it.",
	 .example = "[.ssh, \"*.key\"]"},
	{.key = "mount",
	 .type = &scalar_line,
	 .offset = offsetof(struct lab_share, mount),
	 .help = "The folder in the machines where it appears; /mnt/ and its name when left out.",
	 .example = "/home/student"},
	{0}};

static const struct object share_object = {.name = "share",
					   .help = "A folder of the host that machines may mount.",
					   .fields = share_fields,
					   .size = sizeof(struct lab_share),
					   .name_offset = offsetof(struct lab_share, name),
					   .mark_offset = offsetof(struct lab_share, mark),
					   .host_name = true};

static const struct field limits_fields[] = {{.key = "memory",
					      .type = &scalar_size,
					      .offset = offsetof(struct lab_limits, memory),
					      .min = 32 * MIB,
					      .max = 1024 * GIB,
					      .help = "The memory of all machines together.",
					      .example = "1G"},
					     {.key = "disk",
					      .type = &scalar_size,
					      .offset = offsetof(struct lab_limits, disk),
					      .min = MIB,
					      .max = 8 * TIB,
					      .help = "What the disks of a session may take on the host. The root file "
						      "systems have no space left before that; who writes to a disk "
						      "itself gets errors, and uml-lab status says why. Removed files "
						      "and discarded blocks give space back.",
					      .example = "300M"},
					     {.key = "cpu",
					      .type = &scalar_percent,
					      .offset = offsetof(struct lab_limits, cpu_percent),
					      .min = 1,
					      .max = 10000,
					      .help = "Processor time of all machines together; 100% is one "
						      "processor. Enforced where the user has a cgroup of his own, "
						      "else machines run with low priority; status says which.",
					      .example = "50%"},
					     {.key = "time",
					      .type = &scalar_duration,
					      .offset = offsetof(struct lab_limits, time_ms),
					      .min = 1000,
					      .max = 8784 * HOUR,
					      .help = "How long a session may run, from the start that finds none of its "
						      "machines running. Their consoles tell it 5 minutes before.",
					      .example = "3h"},
					     {0}};

static const struct object limits_object = {.name = "limits",
					    .help = "What a session may use of the host.",
					    .fields = limits_fields,
					    .size = sizeof(struct lab_limits),
					    .mark_offset = NO_OFFSET};

static const struct field expect_fields[] = {
	{.key = "output",
	 .type = &scalar_text,
	 .offset = offsetof(struct lab_check, expect_output),
	 .help = "What the command must write; blanks at the end do not count.",
	 .example = "\"1\""},
	{.key = "match",
	 .type = &scalar_regex,
	 .offset = offsetof(struct lab_check, expect_match),
	 .help = "An extended regular expression that the output must match; ^ and $ are the ends of each of its lines.",
	 .example = "\"^inet 10\\\\.\""},
	{.key = "status",
	 .type = &scalar_int,
	 .offset = offsetof(struct lab_check, expect_status),
	 .fallback = "0",
	 .min = 0,
	 .max = 255,
	 .help = "The exit status."},
	{0}};

static const struct object expect_object = {
	.name = "expect",
	.help = "What must hold for a check to pass; all that is given counts.",
	.fields = expect_fields,
	.size = sizeof(struct lab_check),
	.mark_offset = NO_OFFSET};

static const struct field check_fields[] = {
	{.key = "name",
	 .type = &scalar_line,
	 .flags = FIELD_REQUIRED,
	 .offset = offsetof(struct lab_check, name),
	 .help = "What is checked, for people.",
	 .example = "r1 forwards packets"},
	{.key = "machine",
	 .type = &scalar_line,
	 .flags = FIELD_REQUIRED,
	 .offset = offsetof(struct lab_check, machine),
	 .help = "The machine it runs in.",
	 .example = "r1"},
	{.key = "run",
	 .type = &scalar_text,
	 .flags = FIELD_REQUIRED,
	 .offset = offsetof(struct lab_check, run),
	 .help = "The shell command.",
	 .example = "sysctl -n net.ipv4.ip_forward"},
	{.key = "expect",
	 .kind = FIELD_OBJECT,
	 .object = &expect_object,
	 .help = "What must hold; left out, exit status 0.",
	 .example = "{output: \"1\"}"},
	{.key = "points",
	 .type = &scalar_int,
	 .offset = offsetof(struct lab_check, points),
	 .fallback = "1",
	 .min = 0,
	 .max = 1000,
	 .help = "What it counts."},
	{.key = "stage",
	 .type = &scalar_lab_name,
	 .offset = offsetof(struct lab_check, stage),
	 .help = "The part of the exercise it belongs to, for `check --stage`.",
	 .example = "first"},
	{.key = "timeout",
	 .type = &scalar_duration,
	 .offset = offsetof(struct lab_check, timeout_ms),
	 .fallback = "30s",
	 .min = 1,
	 .max = 24 * HOUR,
	 .help = "How long one try may take."},
	{.key = "retry",
	 .type = &scalar_duration,
	 .offset = offsetof(struct lab_check, retry_ms),
	 .fallback = "0s",
	 .max = 24 * HOUR,
	 .help = "For how long a failing check is tried again."},
	{0}};

static const struct object check_object = {
	.name = "check",
	.help = "A command that tells whether a part of the exercise is done.",
	.fields = check_fields,
	.size = sizeof(struct lab_check),
	.mark_offset = offsetof(struct lab_check, mark)};

static const struct field lab_fields[] = {{.key = "lab",
					   .type = &scalar_lab_name,
					   .flags = FIELD_REQUIRED | FIELD_NO_PARAMS,
					   .offset = offsetof(struct lab, name),
					   .help = "The lab's name.",
					   .example = "routing-1"},
					  {.key = "title",
					   .type = &scalar_line,
					   .offset = offsetof(struct lab, title),
					   .help = "One line for people.",
					   .example = "Static routing between two networks"},
					  {.key = "description",
					   .type = &scalar_text,
					   .offset = offsetof(struct lab, description),
					   .help = "More for people."},
					  {.key = "base",
					   .type = &scalar_image,
					   .offset = offsetof(struct lab, base),
					   .help = "The base image of the machines that name none: an "
						   "image's name, or the path of an image or layer.",
					   .example = "debian-12"},
					  {.key = "params",
					   .kind = FIELD_MAP,
					   .flags = FIELD_FIRST,
					   .object = &param_object,
					   .max_count = 256,
					   LIST_AT(struct lab, params, param_count),
					   .help = "Parameters, which --param sets.",
					   .example = "{student: \"{{user}}\", index: 1}"},
					  {.key = "networks",
					   .kind = FIELD_MAP,
					   .object = &network_object,
					   .max_count = 256,
					   LIST_AT(struct lab, networks, network_count),
					   .help = "Networks between machines.",
					   .example = "{lan-a: {}}"},
					  {.key = "machines",
					   .kind = FIELD_MAP,
					   .flags = FIELD_REQUIRED,
					   .object = &machine_object,
					   .max_count = LAB_MACHINES_MAX,
					   LIST_AT(struct lab, machines, machine_count),
					   .help = "The machines, by host name.",
					   .example = "{r1: {memory: 128M}}"},
					  {.key = "shares",
					   .kind = FIELD_MAP,
					   .object = &share_object,
					   .max_count = 64,
					   LIST_AT(struct lab, shares, share_count),
					   .help = "Folders of the host for machines.",
					   .example = "{handout: {path: handout, mode: ro}}"},
					  {.key = "limits",
					   .kind = FIELD_OBJECT,
					   .object = &limits_object,
					   .offset = offsetof(struct lab, limits),
					   .help = "What a session may use of the host.",
					   .example = "{memory: 1G, disk: 300M}"},
					  {.key = "checks",
					   .kind = FIELD_LIST,
					   .object = &check_object,
					   .max_count = 256,
					   LIST_AT(struct lab, checks, check_count),
					   .help = "Commands that tell whether the exercise is done."},
					  {0}};

const struct object lab_schema = {.name = "lab",
				  .help = "A lab.yml as a whole.",
				  .fields = lab_fields,
				  .size = sizeof(struct lab),
				  .mark_offset = NO_OFFSET};

size_t lab_element_size(const struct field *field)
{
	return field->object ? field->object->size : field->type->size;
}

static void release_field(const struct field *field, char *value)
{
	char **items;
	size_t *count, size;

	if (field->kind == FIELD_SCALAR) {
		if (field->type->release)
			field->type->release(value + field->offset);
		return;
	}
	if (field->kind == FIELD_OBJECT) {
		lab_release_object(field->object, value + field->offset);
		return;
	}
	items = (char **)(value + field->offset);
	count = (size_t *)(value + field->count_offset);
	size = lab_element_size(field);
	for (size_t i = 0; i < *count; i++) {
		if (field->object)
			lab_release_object(field->object, *items + i * size);
		else if (field->type->release)
			field->type->release(*items + i * size);
		if (field->kind == FIELD_MAP)
			lab_string_release(*items + i * size + field->object->name_offset);
	}
	free(*items);
	*items = NULL;
	*count = 0;
}

void lab_release_object(const struct object *object, void *value)
{
	if (object->scalar)
		release_field(object->scalar, value);
	for (const struct field *field = object->fields; field && field->key; field++)
		release_field(field, value);
}
