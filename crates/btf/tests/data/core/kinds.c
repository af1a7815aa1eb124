// Members of the same name and another kind.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed long long s64;

struct point {
	int x, y;
};

enum mood { CALM, ANGRY = 7, GONE = 9 };
enum huge : unsigned long long { SMALL = 1, WIDE = 0x123456789abULL };

struct thing {
	struct point id;
	u32 flags[2];
	struct {
		u16 hidden;
		union {
			u64 either;
			u32 or;
		};
	};
	struct point *path;
	struct point grid[3];
	int name;
	const struct point *const next;
	int (*call)(int, struct point *);
	int mood;
	u32 bits_a : 3;
	int bits_b : 7;
	u64 bits_c : 33;
	u8 narrow;
	float ratio;
	u32 tail[4];
};

struct point___flavour {
	int x, z;
};

struct missing {
	int a;
};

struct choice {
	u32 a;
	u64 b;
};

typedef struct thing thing_t;
typedef int (*callback)(struct thing *, u32);
typedef struct {
	int anon;
} anon_t;

struct thing *t_; struct point *p_; struct missing *m_;  thing_t *tt_; callback cb_; anon_t *a_; enum mood e_; enum huge h_;
