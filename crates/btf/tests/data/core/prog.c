// Every kind of CO-RE relocation, against types that the targets beside it change.
// Built by build.sh; what libbpf made of it is in *.answers.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed long long s64;

#define core __attribute__((preserve_access_index))
#define field(ptr, f, what) __builtin_preserve_field_info((ptr)->f, what)
enum { BYTE_OFFSET, BYTE_SIZE, EXISTS, SIGNED, LSHIFT, RSHIFT };
#define local_id(t) __builtin_btf_type_id(*(typeof(t) *)0, 0)
#define target_id(t) __builtin_btf_type_id(*(typeof(t) *)0, 1)
#define type_exists(t) __builtin_preserve_type_info(*(typeof(t) *)0, 0)
#define type_size(t) __builtin_preserve_type_info(*(typeof(t) *)0, 1)
#define type_matches(t) __builtin_preserve_type_info(*(typeof(t) *)0, 2)
#define enum_exists(t, v) __builtin_preserve_enum_value(*(typeof(t) *)v, 0)
#define enum_value(t, v) __builtin_preserve_enum_value(*(typeof(t) *)v, 1)

struct point {
	int x, y;
} core;

enum mood { CALM, ANGRY = 7, GONE = 9 };
enum huge : unsigned long long { SMALL = 1, WIDE = 0x123456789abULL };

struct thing {
	int id;
	const volatile u32 flags;
	struct {
		u16 hidden;
		union {
			u64 either;
			u32 or;
		};
	};
	struct point path[4];
	struct point grid[2][3];
	char name[16];
	struct point *next;
	int (*call)(int, struct point *);
	enum mood mood;
	u32 bits_a : 3;
	int bits_b : 7;
	u64 bits_c : 33;
	u8 narrow;
	float ratio;
	u32 tail[];
} core;

struct point___flavour {
	int x, z;
} core;

struct missing {
	int a;
} core;

union choice {
	u32 a;
	u64 b;
} core;

typedef struct thing thing_t;
typedef int (*callback)(struct thing *, u32);
typedef struct {
	int anon;
} anon_t;

volatile u64 sink;
#define put(v) (sink = (u64)(v))

__attribute__((section("tc"), used)) int prog(struct thing *t)
{
	put(t->id);
	put(t->flags);
	put(t->hidden);
	put(t->either);
	put(t->or);
	put(t->path[2].y);
	put(t->grid[1][2].x);
	put(t->name[3]);
	put((u64)t->next);
	put((u64)t->call);
	put(t->mood);
	put(t->narrow);
	t->id = 4;
	t->flags == 3 ? put(1) : put(2);
	put((u64)&t->tail[5]);
	put((u64)&t[2].name[1]);

	put(field(t, bits_a, BYTE_OFFSET));
	put(field(t, bits_a, BYTE_SIZE));
	put(field(t, bits_a, LSHIFT));
	put(field(t, bits_a, RSHIFT));
	put(field(t, bits_b, BYTE_OFFSET));
	put(field(t, bits_b, SIGNED));
	put(field(t, bits_b, LSHIFT));
	put(field(t, bits_c, BYTE_OFFSET));
	put(field(t, bits_c, BYTE_SIZE));
	put(field(t, bits_c, LSHIFT));
	put(field(t, bits_c, RSHIFT));
	put(field(t, path[1].y, BYTE_SIZE));
	put(field(t, name, BYTE_SIZE));
	put(field(t, ratio, EXISTS));
	put(field(t, mood, SIGNED));
	put(field(t, tail[1], EXISTS));
	put(field((struct missing *)t, a, EXISTS));
	put(field((struct point___flavour *)t, z, EXISTS));
	put(field((struct point___flavour *)t, x, BYTE_OFFSET));
	put(field((union choice *)t, b, BYTE_SIZE));

	put(local_id(struct thing));
	put(target_id(struct thing));
	put(target_id(struct missing));
	put(type_exists(struct thing));
	put(type_exists(struct missing));
	put(type_exists(thing_t));
	put(type_exists(callback));
	put(type_exists(anon_t));
	put(type_exists(union choice));
	put(type_exists(enum mood));
	put(type_size(struct thing));
	put(type_size(thing_t));
	put(type_size(struct missing));
	put(type_size(enum huge));
	put(type_matches(struct point));
	put(type_matches(struct thing));
	put(type_matches(callback));
	put(type_matches(enum mood));
	put(type_matches(union choice));
	put(type_matches(anon_t));

	put(enum_exists(enum mood, ANGRY));
	put(enum_value(enum mood, ANGRY));
	put(enum_exists(enum mood, GONE));
	put(enum_value(enum huge, WIDE));
	put(enum_exists(enum huge, SMALL));
	return 0;
}

// Here the verifier would have to refuse what is reached, so it is not.
__attribute__((section("xdp"), used)) int gone(struct missing *m)
{
	if (!field(m, a, EXISTS))
		return 0;
	m->a = 5;
	return m->a + enum_value(enum mood, GONE);
}

char _license[] __attribute__((section("license"), used)) = "GPL";
