# uml-lab: one non-recursive Makefile; each folder lists its sources in its module.mk.
#
#   make            build everything into build/$(VARIANT)
#   make run        install what is missing, build, start the first lab      (README)
#   make check      install what is missing, build, run all tests            (README)
#   make VARIANT=debug|san …   -O0 -g | address and undefined-behaviour sanitizers
#   make install PREFIX=$HOME/.local     needs no root

VARIANT ?= release
PREFIX ?= /usr/local
VERSION := 0.1.0
B := build/$(VARIANT)

CC := gcc
PKGS := yaml-0.1 libarchive jansson ext2fs com_err slirp fuse3 libseccomp
# Of these, what programs have linked in, with what it needs itself: each verb and each machine's supervisor would otherwise load
# twenty shared libraries. Tests take them all as shared ones.
LINKED_IN := yaml jansson archive acl zstd lzma bz2 lz4 z ext2fs com_err fuse3 seccomp
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-missing-field-initializers
ifeq ($(CI),true)
WARN += -Werror
endif
OPT_release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -ffunction-sections -fdata-sections
OPT_debug := -O0 -g3
OPT_san := -O1 -g3 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
ifeq ($(OPT_$(VARIANT)),)
$(error VARIANT is release, debug or san, not '$(VARIANT)')
endif
# Looked up once, and only by targets that compile.
pkg = $(shell pkg-config $(1) $(PKGS))
CPPFLAGS += -D_GNU_SOURCE -I. -I$(B) -DUML_LAB_VERSION='"$(VERSION)"' -DUML_LAB_PREFIX='"$(PREFIX)"'
CFLAGS += -std=gnu17 $(WARN) $(OPT_$(VARIANT)) -fPIE
LDFLAGS += -pie -Wl,-z,relro,-z,now
ifeq ($(VARIANT),san)
LDFLAGS += -fsanitize=address,undefined
endif

.DEFAULT_GOAL := all
.SECONDEXPANSION:
.DELETE_ON_ERROR:
.SUFFIXES:

# What a module.mk may define: LIB_NAME_SRCS (static library libNAME.a), PROGRAMS (name:libs order below),
# STATIC_PROGRAMS (guest programs, no library but libc), MAN pages.
LIBS :=
PROGRAMS :=
STATIC_PROGRAMS :=
STATIC_PIE :=
MANPAGES :=
MODULES := uml-lab/base cow netplug hostfs uml-lab/lab uml-lab/image uml-lab/session uml-lab/submission uml-lab/network uml-lab/machine uml-lab/guest uml-lab/cmd
-include $(wildcard $(addsuffix /module.mk,$(MODULES)))

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
LIB_FILES := $(foreach l,$(LIBS),$(B)/lib$(l).a)
BIN_FILES := $(addprefix $(B)/,$(PROGRAMS))
STATIC_FILES := $(addprefix $(B)/,$(STATIC_PROGRAMS))

.PHONY: all
all: $(BIN_FILES) $(STATIC_FILES)
	@:

# Flags that need pkg-config are computed lazily, once.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(call pkg,--cflags))$(PKG_CFLAGS)
# libvdeplug has no pkg-config file.
PKG_LIBS = $(eval PKG_LIBS := $$(call pkg,--libs) -lvdeplug)$(PKG_LIBS)
LINKED_IN_FLAGS := $(addprefix -l,$(LINKED_IN))
PROGRAM_LIBS = -Wl,-Bstatic $(LINKED_IN_FLAGS) -Wl,-Bdynamic $(filter-out $(LINKED_IN_FLAGS),$(PKG_LIBS))

$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC   $@"
	@$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Guest programs: static, small, without sanitizers (they run as pid 1 of a guest).
$(B)/obj-static/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC   $@"
	@$(CC) $(CPPFLAGS) -std=gnu17 $(WARN) -Os -g0 -ffunction-sections -fdata-sections -MMD -MP -c -o $@ $<

define lib_rule
$(B)/lib$(1).a: $(call obj,$(LIB_$(1)_SRCS))
	@echo "  AR   $$@"
	@rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach l,$(LIBS),$(eval $(call lib_rule,$(l))))

# Programs link against all libraries of the tree; the linker takes what is used. STATIC_PIE: programs that run for a millisecond,
# of which the loading of libc would be the half; the sanitizers need it shared.
comma := ,
ifneq ($(VARIANT),san)
is_static = $(filter $(1),$(STATIC_PIE))
endif
# What debuggers read lies apart, where gdb, perf and valgrind look for it: a program that is started for the first time is read from the disk.
define program_rule
$(B)/$(1): $(call obj,$(PROGRAM_$(1)_SRCS)) $(LIB_FILES) Makefile
	@echo "  LD   $$@"
	@mkdir -p $(B)/.debug
	@$(CC) $(if $(call is_static,$(1)),-static-pie -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now,$(LDFLAGS)) -Wl,--gc-sections -o $$@ $(call obj,$(PROGRAM_$(1)_SRCS)) \
		-Wl,--as-needed -Wl,--start-group $(LIB_FILES) -Wl,--end-group \
		$$(if $(call is_static,$(1)),$(LINKED_IN_FLAGS),$$(PROGRAM_LIBS)) -lpthread
	@objcopy --only-keep-debug $$@ $(B)/.debug/$(1).debug
	@strip $$@ && objcopy --add-gnu-debuglink=$(B)/.debug/$(1).debug $$@
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rule,$(p))))

define static_rule
$(B)/$(1): $(patsubst %.c,$(B)/obj-static/%.o,$(PROGRAM_$(1)_SRCS))
	@echo "  LD   $$@ (static)"
	@$(CC) -static -Wl,--gc-sections -s -o $$@ $$^
endef
$(foreach p,$(STATIC_PROGRAMS),$(eval $(call static_rule,$(p))))

-include tests/module.mk
-include $(shell [ -d $(B) ] && find $(B) -name '*.d')

# ---- what a fresh Debian 12 lacks ----

# To build; to run labs; to test. Debian's own packages only.
DEPS_BUILD := gcc make pkg-config libc6-dev libyaml-dev libarchive-dev libjansson-dev libext2fs-dev comerr-dev \
	libslirp-dev libvdeplug-dev libfuse3-dev libglib2.0-dev libseccomp-dev
# The static libraries of LINKED_IN
DEPS_BUILD += libacl1-dev libzstd-dev liblzma-dev libbz2-dev liblz4-dev zlib1g-dev
DEPS_BUILD += libpcap0.8-dev
DEPS_RUN := user-mode-linux busybox-static e2fsprogs mmdebstrap fakechroot fakeroot vde2 procps libpcap0.8
DEPS_CHECK := libcunit1-dev git stress-ng patchelf kmod python3 tmux uml-utilities qemu-utils qemu-system-x86 fuse3 curl attr acl \
	libcap2-bin zstd xz-utils strace wget patch debian-archive-keyring util-linux python3-jsonschema python3-yaml \
	iproute2 fuse2fs xfsprogs dosfstools btrfs-progs lvm2 mdadm fio tshark binutils valgrind \
	shellcheck cppcheck man-db
DEPS_LINT := clang-format shellcheck cppcheck man-db

.PHONY: deps deps-check deps-lint
deps:
	@tests/deps $(DEPS_BUILD) $(DEPS_RUN)
# All at once, so that a person without root is asked once.
deps-check:
	@tests/deps $(DEPS_BUILD) $(DEPS_RUN) $(DEPS_CHECK)
deps-lint:
	@tests/deps $(DEPS_BUILD) $(DEPS_RUN) $(DEPS_LINT)

# ---- README's two commands ----

# On all cores, unless -j was given.
PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: run check
run: deps
	@$(MAKE) --no-print-directory $(PARALLEL) all
	@labs/first-run $(B)

# As root the tests run as UML_LAB_TEST_USER (made when it is not there); NAMES="boot/exec unit/test_cow": only those.
UML_LAB_TEST_USER ?= uml-lab-test
check: deps-check
	@$(MAKE) --no-print-directory $(PARALLEL) all unit-tests
	@tests/kernels
	@if [ "$$(id -u)" = 0 ]; then \
		getent passwd $(UML_LAB_TEST_USER) >/dev/null || useradd --create-home $(UML_LAB_TEST_USER); \
		tests/run --build $(B) --as $(UML_LAB_TEST_USER) $(NAMES); \
	else tests/run --build $(B) $(NAMES); fi

# ---- installing ----

# The labs lie with the programs: $(PREFIX)/share/uml-lab may be where the user's own images and labs are, which nothing here
# may touch.
LIBEXEC := $(DESTDIR)$(PREFIX)/libexec/uml-lab
SHARE := $(DESTDIR)$(PREFIX)/share
USER_PROGRAMS := uml-lab uml-cow
man_path = $(SHARE)/man/man$(subst .,,$(suffix $(1)))/$(notdir $(1))
COMPLETIONS := $(SHARE)/bash-completion/completions

# What uninstall leaves empty goes, innermost first; the folders of a system's own /usr/local are not ours.
INSTALLED_FOLDERS := $(sort $(dir $(foreach m,$(MANPAGES),$(call man_path,$(m))))) $(COMPLETIONS) $(SHARE)/bash-completion
ifneq ($(DESTDIR)$(PREFIX),/usr/local)
INSTALLED_FOLDERS += $(SHARE)/man $(SHARE) $(dir $(LIBEXEC)) $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)
endif

.PHONY: install uninstall
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(LIBEXEC) $(COMPLETIONS)
	install -m 755 $(addprefix $(B)/,$(USER_PROGRAMS)) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(addprefix $(B)/,$(filter-out $(USER_PROGRAMS),$(PROGRAMS) $(STATIC_PROGRAMS))) $(LIBEXEC)
	rm -rf $(LIBEXEC)/labs && install -d $(LIBEXEC)/labs
	cp -R $(dir $(wildcard labs/*/lab.yml)) $(LIBEXEC)/labs
	$(foreach m,$(MANPAGES),install -D -m 644 $(m) $(call man_path,$(m)) &&) true
	$(B)/uml-lab completion bash > $(COMPLETIONS)/uml-lab

uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(USER_PROGRAMS)) $(COMPLETIONS)/uml-lab
	rm -f $(foreach m,$(MANPAGES),$(call man_path,$(m)))
	rm -rf $(LIBEXEC)
	@for folder in $(INSTALLED_FOLDERS); do rmdir "$$folder" 2>/dev/null || true; done
ifneq ($(DESTDIR),)
	@cd $(DESTDIR) && rmdir -p --ignore-fail-on-non-empty .$(PREFIX) 2>/dev/null || true
endif

# ---- the rest ----

.PHONY: lint bench fuzz dist clean
lint: deps-lint
	@tests/lint

bench: deps-check
	@$(MAKE) --no-print-directory all bench-needs
	@tests/bench/run $(B) $(BENCH)

# The disk of a guest against ubd and qemu-storage-daemon: about ten minutes.
.PHONY: bench-disk
bench-disk: deps-check
	@tests/deps qemu-system-common
	@$(MAKE) --no-print-directory all bench-needs
	@tests/bench/run $(B) disk

# Guests' networks, to the host and to each other: about seven minutes.
.PHONY: bench-net
bench-net: deps-check
	@tests/deps slirp4netns slirp
	@$(MAKE) --no-print-directory all bench-needs
	@tests/bench/run $(B) net

# FUZZ_SECONDS for each entry; needs clang.
FUZZ_SECONDS ?= 60
fuzz:
	@tests/deps clang libclang-rt-14-dev
	@tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ)

dist:
	@mkdir -p build
	git archive --prefix=uml-lab-$(VERSION)/ -o build/uml-lab-$(VERSION).tar.gz HEAD
	@echo build/uml-lab-$(VERSION).tar.gz

clean:
	rm -rf build
