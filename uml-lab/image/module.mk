LIBS += image
LIB_image_SRCS := $(addprefix uml-lab/image/,apt.c archive.c debian.c debian_files.c draft.c format.c fs.c fs_folders.c \
	fs_inode.c fs_stream.c import.c layer.c clean.c mmdebstrap.c store.c tiny.c tiny_files.c tools.c tree.c xattrs.c)
