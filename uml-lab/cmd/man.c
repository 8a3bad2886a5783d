/* uml-lab __man: uml-lab(1), for the Makefile. Not for people, so not in the overview. */
#include "uml-lab/cmd/cmd.h"

static const char tail[] =
	".SH OPERANDS\n"
	"\\fBLAB\\fR is a folder, a lab.yml, or a name that \\fBuml-lab list\\fR shows: looked for in $UML_LAB_PATH, ./labs, the "
	"user's and the system's lab folders.\n"
	".PP\n"
	"\\fBSESSION\\fR may be left out where the user has just one, or stands in the lab's folder; \\fBMACHINE\\fR where the "
	"session has just one.\n"
	".SH \"EXIT STATUS\"\n"
	"0 done; 1 failed; 2 wrong usage; 3 the lab description is wrong; 4 no such lab, session, machine, image or "
	"snapshot; 5 not running, or already running; 6 checks ran and some failed; 7 time-out. \\fBexec\\fR "
	"ends with the command's own.\n"
	".SH ENVIRONMENT\n"
	".TP\n\\fBUML_LAB_PATH\\fR, \\fBUML_LAB_IMAGES\\fR\nfolders with labs and with images, separated by colons\n"
	".TP\n\\fBUML_LAB_KERNEL\\fR, \\fBUML_LAB_KERNELS\\fR\nthe kernel that \\fBkernel: auto\\fR means; a folder with more "
	"kernels\n"
	".TP\n\\fBUML_LAB_SANDBOX\\fR\n\\fBprocess-group\\fR: do without user namespaces\n"
	".TP\n\\fBUML_LAB_PLACEMENT\\fR\n\\fBnone\\fR: leave each guest's processes to the host's scheduler, rather than keep them "
	"together on one processor\n"
	".TP\n\\fBNO_COLOR\\fR\nno colours\n"
	".SH FILES\n"
	".TP\n$XDG_STATE_HOME/uml-lab/sessions/\\fINAME\\fR/\n"
	"session.yml, and for each machine its overlay (root.cow; root-2.cow and so on after snapshots), its extra disks and its "
	"logs\n"
	".TP\n$XDG_DATA_HOME/uml-lab/images/, /var/lib/uml-lab/images/\nbase images\n"
	".TP\n$XDG_RUNTIME_DIR/uml-lab/\nsockets\n"
	".SH \"SEE ALSO\"\n"
	"\\fBuml-lab-lab\\fR(5), \\fBuml-lab-submission\\fR(5), \\fBuml-lab-networks\\fR(7), \\fBuml-lab-security\\fR(7), "
	"\\fBuml-cow\\fR(1), \\fBuml-netplug\\fR(1), \\fBuml-hostfs\\fR(1)\n";

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	(void)opaque;
	(void)operands;
	(void)err;
	cli_man(&uml_lab_program, "1", tail, stdout);
	return 0;
}

const struct cli_command cmd_man = {.name = "__man", .operands = "", .run = run};
