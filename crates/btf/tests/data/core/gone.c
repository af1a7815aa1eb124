// Fewer members, values and types.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed long long s64;

struct point {
	int x, y;
};

enum mood { CALM, ANGRY = 7 };
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
	struct point grid[2][3];
	char name[16];
	int next;
	enum mood mood;
	int bits_b : 7;
	u64 bits_c : 33;
	u8 narrow;
	u32 tail[];
};

struct point___flavour {
	int x, z;
};


union choice {
	u32 a;
	u64 b;
};

typedef struct thing thing_t;
typedef int (*callback)(struct thing *);

struct thing *t_; struct point *p_;  union choice *c_; thing_t *tt_; callback cb_;  enum mood e_; enum huge h_;
