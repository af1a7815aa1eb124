typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned char u8; typedef signed char s8;
#define SEC(n) __attribute__((section(n), used))
#define tag(x) __attribute__((btf_decl_tag(x)))
#define ttag(x) __attribute__((btf_type_tag(x)))
struct fwd; union ufwd;
enum small { A1 = -1, A2 = 5 };
enum big : unsigned long long { B1 = 1ULL << 40, B2 = 7 };
struct bits { int a:3; unsigned b:5; u8 c:1; enum small e:4; u64 long_one:40; } ;
struct inner { u32 x; union { u32 y; float f; double d; }; } tag("inner_tag");
struct outer { struct inner in[3]; const volatile char name[16]; struct fwd *p; union ufwd *q; u32 (*fn)(int a, void *restrict b); struct outer *next; _Bool flag; enum big big; __int128 wide; struct bits bits; u32 ttag("mytag") *tagged; u32 flex[]; };
typedef struct outer outer_t tag("td");
u32 counter SEC(".data.a") = 4; static volatile const u64 ro SEC(".rodata") = 3; outer_t *gp tag("var_tag");
extern int ext_fn(u32 *arg, ...) SEC(".ksyms");
static __attribute__((noinline)) int helper(outer_t *o tag("arg_tag"), u32 n) { return o->in[1].x + n + o->bits.b; }
int prog(outer_t *ctx) tag("fn_tag");
SEC("tc") int prog(outer_t *ctx) { struct outer *v = ctx; gp = v; counter++; return helper(ctx, (u32)ro + (v ? v->flag : 0)); }
enum big eb; enum small es; float ff;
char _license[] SEC("license") = "GPL";
