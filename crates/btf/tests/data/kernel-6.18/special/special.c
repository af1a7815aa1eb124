// What every case starts with.
typedef unsigned int u32;
typedef unsigned long long u64;
struct bpf_spin_lock { u32 val; };
struct bpf_res_spin_lock { u32 val; };
struct bpf_timer { u64 opaque[2]; };
struct bpf_wq { u64 opaque[2]; };
struct bpf_task_work { u64 opaque; };
struct bpf_list_head { u64 opaque[2]; };
struct bpf_list_node { u64 opaque[3]; };
struct bpf_rb_root { u64 opaque[2]; };
struct bpf_rb_node { u64 opaque[4]; };
struct bpf_refcount { u32 opaque[1]; };
#define contains(t, n) __attribute__((btf_decl_tag("contains:" #t ":" #n)))
#define tag(x) __attribute__((btf_type_tag(x)))
#define kptr tag("kptr")

// bitfield
struct v{struct bpf_spin_lock k; int a:3; int b:5;};

// bitfield_after8
struct v{struct bpf_spin_lock k; int a:8; int b:8;};

// both_locks
struct v{struct bpf_spin_lock k; struct bpf_res_spin_lock r;};

// both_nodes_noref
struct n{struct bpf_rb_node l; struct bpf_list_node m; int d;};

// both_nodes_ref
struct n{struct bpf_rb_node l; struct bpf_list_node m; struct bpf_refcount r;};

// const_kptr
struct zzz{int a;}; struct v{struct zzz kptr *const q; struct zzz kptr *r;};

// const_lock
struct v{const struct bpf_spin_lock k; };

// cycle
struct a{struct bpf_list_node l; struct bpf_spin_lock k; struct bpf_list_head h contains(a,l);};

// deep
struct c{struct bpf_list_node l;}; struct b{struct bpf_list_node l;struct bpf_spin_lock k; struct bpf_list_head h contains(c,l);}; struct a{struct bpf_list_node l; struct bpf_spin_lock k; struct bpf_list_head h contains(b,l);};

// eleven
struct zzz{int a;}; struct v{struct zzz kptr *p[11];};

// kptr_arr
struct zzz{int a;}; struct v{struct zzz kptr *p[11];};

// kptr_arr12
struct zzz{int a;}; struct v{struct zzz kptr *p[12];};

// kptr_int
struct v{int kptr *p;};

// kptr_nested_arr
struct zzz{int a;}; struct i{struct zzz kptr *p; struct zzz kptr *q;}; struct v{struct i x[5];};

// kptr_nested_arr6
struct zzz{int a;}; struct i{struct zzz kptr *p; struct zzz kptr *q;}; struct v{struct i x[6];};

// kptr_sock
struct sock{int a;}; struct v{struct sock kptr *p;};

// kptr_struct
struct zzz{int a;}; struct v{struct zzz kptr *p;};

// kptr_task
struct task_struct{int a;}; struct v{struct task_struct kptr *p;};

// kptr_two_tags
struct zzz{int a;}; struct v{struct zzz tag("kptr") tag("x") *p;};

// kptr_unk_tag
struct zzz{int a;}; struct v{struct zzz tag("hello") *p; struct zzz kptr *q;};

// kptr_untrusted_sock
struct sock{int a;}; struct v{struct sock tag("kptr_untrusted") *p;};

// list_bad_node
struct n{struct bpf_list_node l; int d;}; struct v{struct bpf_spin_lock k; struct bpf_list_head h contains(n,q);};

// list_bad_type
struct n{struct bpf_list_node l; int d;}; struct v{struct bpf_spin_lock k; struct bpf_list_head h contains(zz,l);};

// list_no_contains
struct n{struct bpf_list_node l; int d;}; struct v{struct bpf_spin_lock k; struct bpf_list_head h;};

// list_no_lock
struct n{struct bpf_list_node l; int d;}; struct v{struct bpf_list_head h contains(n,l);};

// list_rb_node
struct n{struct bpf_rb_node l; int d;}; struct v{struct bpf_spin_lock k; struct bpf_list_head h contains(n,l);};

// lock_and_timer
struct v{struct bpf_spin_lock l; struct bpf_timer t;};

// lock_array1
struct v{struct bpf_spin_lock k[1];};

// lock_array2
struct v{struct bpf_spin_lock k[2];};

// lock_wrong_size: struct bpf_spin_lock has 8 bytes
struct v { struct bpf_spin_lock k; };

// misaligned_lock
struct v{char c; struct bpf_spin_lock k;} __attribute__((packed));

// nested_only
struct i{struct bpf_spin_lock k;}; struct v{int a; struct i i;};

// ok_list
struct n{struct bpf_list_node l; int d;}; struct v{struct bpf_spin_lock k; struct bpf_list_head h contains(n,l);};

// ok_rb
struct n{struct bpf_rb_node l; int d;}; struct v{struct bpf_spin_lock k; struct bpf_rb_root h contains(n,l);};

// percpu
struct zzz{int a;}; struct v{struct zzz tag("percpu_kptr") *p;};

// plain
struct v{int a;};

// plain_bits
struct v{int a:3; int b:4;};

// rbnode
struct v{ struct bpf_rb_node r; };

// refcount
struct v{ struct bpf_refcount r; };

// res_list
struct n{struct bpf_list_node l; int d;}; struct v{struct bpf_res_spin_lock k; struct bpf_list_head h contains(n,l);};

// root_node
struct b{struct bpf_list_node l;}; struct a{struct bpf_list_node l; struct bpf_spin_lock k; struct bpf_list_head h contains(b,l);}; struct v{struct bpf_spin_lock k; struct bpf_list_head h contains(a,l);};

// tags_after_const
struct v{ const int tag("a") *p; int *tag("b") const q;};

// ten_nested
struct zzz{int a;}; struct i{struct zzz kptr *p; struct zzz kptr *q;}; struct v{struct i x[5];};

// timer
struct v{int a; struct bpf_timer t;};

// timer2
struct v{struct bpf_timer t; struct bpf_timer u;};

// timer_2d
struct v{struct bpf_timer t[1][1];};

// timer_and_wq
struct v{struct bpf_timer t; struct bpf_wq w; struct bpf_task_work k;};

// timer_arr1
struct v{struct bpf_timer t[1];};

// timer_arr2
struct v{struct bpf_timer t[2];};

// timer_bits
struct v{struct bpf_timer t; int a:3; int b:4;};

// timer_const
struct v{const struct bpf_timer t;};

// timer_flex
struct v{int a; struct bpf_timer t[0];};

// timer_misaligned
struct v{int x; struct bpf_timer t;} __attribute__((packed));

// timer_nested
struct i{int a; struct bpf_timer t;}; struct v{int z; struct i i;};

// timer_nested_arr1
struct i{int a; struct bpf_timer t;}; struct v{int z; struct i i[1];};

// timer_nested_arr2
struct i{int a; struct bpf_timer t;}; struct v{int z; struct i i[2];};

// timer_nested_misaligned_container
struct i{int a;int b; struct bpf_timer t;}; struct v{int z; struct i i;} __attribute__((packed));

// timer_typedef
typedef struct bpf_timer tt_; struct v{tt_ t;};

// timer_union
struct v{union{struct bpf_timer t; int x;} u;};

// timer_wrong: struct bpf_wq has 24 bytes
struct v{struct bpf_wq t;};

// twelve
struct zzz{int a;}; struct v{struct zzz kptr *p[12];};

// twelve_nested
struct zzz{int a;}; struct i{struct zzz kptr *p; struct zzz kptr *q;}; struct v{struct i x[6];};

// two_locks
struct v{struct bpf_spin_lock k; struct bpf_spin_lock k2;};

// typedef_lock
typedef struct bpf_spin_lock lk; struct v{lk k; };

// typedef_struct_member
struct i{int a; struct bpf_timer t;}; typedef struct i it; struct v{int z; it i;};

// union_direct
union w{ struct bpf_spin_lock k; int z;}; struct v {union w w; struct bpf_spin_lock l;};

// union_lock
struct v{union { struct bpf_spin_lock k; int z;} u;};

// uptr_and_kptr
struct zzz{int a;}; struct v{struct zzz tag("uptr") *p;struct zzz kptr *q;};

// uptr_only
struct zzz{int a;}; struct v{struct zzz tag("uptr") *p;};

// volatile_kptr
struct zzz{int a;}; struct v{struct zzz kptr *volatile q;};

// wq_wrong_then_right
struct v{ union { struct bpf_timer a; } u; struct bpf_timer b; };
