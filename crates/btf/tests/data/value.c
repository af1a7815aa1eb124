typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned char u8; typedef signed char s8; typedef short s16; typedef char mychar;
enum small { A1 = -1, A2 = 5 , A3=0}; enum big : unsigned long long { B1 = 1ULL << 40, B2 = 7 }; enum __attribute__((packed)) tiny { T1, T2=1, T3=200 };
struct bits { int a:3; unsigned b:5; u8 c:1; enum small e:4; u64 long_one:40; long long sl:7;};
struct inner { u32 x; union { u32 y; u8 z[4]; }; };
struct empty {};
struct v { struct inner in[3]; const volatile char name[16]; char name2[8]; u8 raw[5]; mychar mc[4]; struct inner *p; int (*fn)(int); _Bool flag; char ch; s8 sc; s16 ss; enum small es; enum big eb; enum tiny et; __int128 wide; struct bits bits; struct empty em; u32 mat[2][3]; char strs[2][4]; long l; } ;
struct v gv; int f(void){return 0;}
