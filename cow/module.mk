LIBS += cow
LIB_cow_SRCS := $(addprefix cow/,format.c file.c temp.c note.c digest.c create.c resolve.c chain.c io.c \
	journal.c copy.c pieces.c build.c flatten.c compare.c merge.c commit.c compact.c detach.c check.c view.c \
	fs.c fs_compare.c fs_diff.c serve.c serve_control.c serve_disk.c serve_blk.c serve_job.c serve_quota.c serve_walls.c \
	serve_claim.c serve_fold.c)
# Two programs, one command: uml-cow has the verbs that need nothing but libcow; for all else it becomes uml-cow-all.
PROGRAMS += uml-cow uml-cow-all
STATIC_PIE += uml-cow
COW_QUICK := $(addprefix cow/,cmd_common.c cmd_create.c cmd_info.c cmd_map.c cmd_diff.c cmd_commit.c cmd_flatten.c cmd_merge.c \
	cmd_rebase.c cmd_convert.c cmd_compact.c cmd_check.c)
PROGRAM_uml-cow_SRCS := cow/quick.c $(COW_QUICK)
PROGRAM_uml-cow-all_SRCS := cow/main.c $(COW_QUICK) $(addprefix cow/,cmd_mount.c cmd_umount.c cmd_fs.c cmd_files.c cmd_cat.c \
	cmd_diff_files.c cmd_serve.c)
MANPAGES += cow/uml-cow.1 cow/uml-cow.5
