/* What libbpf makes of BPF objects, for `cargo xtask libbpf-compare`.
 *
 *   libbpf_view [--kernel] OBJECT...
 *
 * Prints lines of tab-separated fields: `object`, then its `map`s, `inner` maps and `prog`s, or an
 * `error`. Programs are linked one at a time, so that one that cannot be linked does not hide the
 * others: by libbpf's generator of loader programs, which needs no kernel; with --kernel by an
 * ordinary load, which also applies CO-RE and resolves externs by the running kernel's BTF, and
 * ends when the first map or the program itself would be made.
 */
#define _GNU_SOURCE
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

static int by_kernel;
/* The program that is being linked. */
static const char *linked;

/* What libbpf makes system calls with. Its probes of what the kernel can do pass; maps and the
 * program are refused. */
long syscall(long number, ...)
{
	static long (*next)(long, ...);
	long a[6];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (!next)
		next = dlsym(RTLD_NEXT, "syscall");
	if (number == SYS_bpf && linked) {
		const union bpf_attr *attr = (void *)a[1];
		int is_probe = !strncmp(attr->map_name, "libbpf", 6);

		if ((a[0] == BPF_MAP_CREATE && !is_probe) ||
		    (a[0] == BPF_PROG_LOAD && !strncmp(attr->prog_name, linked, 15))) {
			errno = ECANCELED;
			return -1;
		}
	}
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static char reason[1024];

/* Keeps what libbpf warns of, on one line. */
static int keep_warning(enum libbpf_print_level level, const char *format, va_list args)
{
	size_t len = strlen(reason);
	char *end = reason + len;
	int n = 0;

	if (level == LIBBPF_WARN)
		n = vsnprintf(end, sizeof(reason) - len, format, args);
	for (; *end; end++)
		if (*end == '\n' || *end == '\t')
			*end = ' ';
	return n;
}

static void put_hex(const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		printf("%02x", ((const unsigned char *)bytes)[i]);
}

static void put_map(const char *what, struct bpf_map *map)
{
	size_t size = 0;
	const void *data = bpf_map__initial_value(map, &size);
	int pinned = bpf_map__pin_path(map) != NULL;

	printf("%s\t%s\t%d\t%u\t%u\t%u\t%#x\t%#llx\t%u\t%u\t%u\t%d\t%d\t", what, bpf_map__name(map),
	       bpf_map__type(map), bpf_map__key_size(map), bpf_map__value_size(map),
	       bpf_map__max_entries(map), bpf_map__map_flags(map),
	       (unsigned long long)bpf_map__map_extra(map), bpf_map__numa_node(map),
	       bpf_map__btf_key_type_id(map), bpf_map__btf_value_type_id(map), pinned,
	       bpf_map__autocreate(map));
	/* A struct_ops value holds pointers of this process, and an arena's is shorter than said.
	 * Zeros at the end say nothing. */
	if (data && bpf_map__is_internal(map)) {
		while (size && !((const char *)data)[size - 1])
			size--;
		put_hex(data, size);
	}
	printf("\n");
	if (bpf_map__inner_map(map))
		put_map("inner", bpf_map__inner_map(map));
}

/* Functions as instruction:type, and lines as instruction:line:column; nothing where libbpf is too
 * old to tell, or has let go of them since it could not load the program. */
static void put_info(const struct bpf_program *prog)
{
#if LIBBPF_MAJOR_VERSION > 1 || LIBBPF_MINOR_VERSION >= 6
	const struct bpf_func_info *funcs = bpf_program__func_info(prog);
	const struct bpf_line_info *lines = bpf_program__line_info(prog);

	for (__u32 i = 0; funcs && i < bpf_program__func_info_cnt(prog); i++)
		printf("%u:%u ", funcs[i].insn_off, funcs[i].type_id);
	printf("\t");
	for (__u32 i = 0; lines && i < bpf_program__line_info_cnt(prog); i++)
		printf("%u:%u:%u ", lines[i].insn_off, BPF_LINE_INFO_LINE_NUM(lines[i].line_col),
		       BPF_LINE_INFO_LINE_COL(lines[i].line_col));
#else
	printf("\t");
#endif
}

static struct bpf_object *open_object(const char *path)
{
	reason[0] = '\0';
	return bpf_object__open_file(path, NULL);
}

/* Links the program of this number alone and prints its instructions. */
static void put_prog(const char *path, int number)
{
	LIBBPF_OPTS(gen_loader_opts, gen);
	struct bpf_object *obj = open_object(path);
	struct bpf_program *prog, *wanted = NULL;
	struct bpf_map *map;
	int i = 0, autoload, type, attach, flags, err;

	if (!obj)
		return;
	bpf_object__for_each_program(prog, obj) {
		if (i++ == number)
			wanted = prog;
		else
			bpf_program__set_autoload(prog, false);
	}
	autoload = bpf_program__autoload(wanted);
	type = bpf_program__type(wanted);
	attach = bpf_program__expected_attach_type(wanted);
	flags = bpf_program__flags(wanted);
	printf("prog\t%s\t%s\t%d\t%d\t%d\t%d\t", bpf_program__name(wanted),
	       bpf_program__section_name(wanted), type, attach, flags, autoload);
	bpf_program__set_autoload(wanted, true);
	/* Struct_ops values are filled from a running kernel's BTF, which is no business of linking;
	 * a program of another type loads without one. */
	if (type == BPF_PROG_TYPE_STRUCT_OPS || type == BPF_PROG_TYPE_UNSPEC)
		bpf_program__set_type(wanted, BPF_PROG_TYPE_SOCKET_FILTER);
	/* An arena would be mapped from the file descriptor that it does not have. */
	bpf_object__for_each_map(map, obj) {
		const char *map_type = libbpf_bpf_map_type_str(bpf_map__type(map));

		if (map_type && (!strcmp(map_type, "struct_ops") ||
				 (!strcmp(map_type, "arena") && !by_kernel)))
			bpf_map__set_autocreate(map, false);
	}
	reason[0] = '\0';
	linked = bpf_program__name(wanted);
	err = by_kernel ? 0 : bpf_object__gen_loader(obj, &gen);
	if (!err)
		err = bpf_object__load(obj);
	linked = NULL;
	printf("%d\t%s\t", err, reason);
	put_hex(bpf_program__insns(wanted), bpf_program__insn_cnt(wanted) * 8);
	printf("\t");
	put_info(wanted);
	printf("\n");
	bpf_object__close(obj);
}

static void put_object(const char *path)
{
	struct bpf_object *obj = open_object(path);
	struct bpf_program *prog;
	struct bpf_map *map;
	int err = errno, progs = 0;

	printf("object\t%s\n", path);
	fflush(stdout); /* for whoever asks what libbpf died of */
	if (!obj) {
		printf("error\t%d\t%s\n", err, reason);
		return;
	}
	bpf_object__for_each_map(map, obj)
		put_map("map", map);
	bpf_object__for_each_program(prog, obj)
		progs++;
	bpf_object__close(obj);
	for (int i = 0; i < progs; i++)
		put_prog(path, i);
}

int main(int argc, char **argv)
{
	libbpf_set_print(keep_warning);
	printf("libbpf\t%s\n", libbpf_version_string());
	by_kernel = argc > 1 && !strcmp(argv[1], "--kernel");
	for (int i = 1 + by_kernel; i < argc; i++)
		put_object(argv[i]);
	return 0;
}
