// Several candidates for one name that agree.
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
};

struct point___flavour {
	int x, z;
};

struct missing {
	int a;
};

union choice {
	u32 a;
	u64 b;
};

typedef struct thing thing_t;
typedef int (*callback)(struct thing *, u32);
typedef struct {
	int anon;
} anon_t;


struct thing___v1 {
	int id;
	u32 flags;
};
struct point___other {
	int x;
	int y;
	int extra;
};
struct thing___v1 *v1_; struct point___other *o_;

struct thing *t_; struct point *p_; struct missing *m_; union choice *c_; thing_t *tt_; callback cb_; anon_t *a_; enum mood e_; enum huge h_;
