/* test_operations.h - template: each operation of the vector layer against plain C, lane by lane. */

static real T(lanes_a)[LANES], T(lanes_b)[LANES], T(lanes_c)[LANES], T(result)[LANES];

/* Any real but nan and infinity. A zero, a one, a denormal and their negatives come more often than by chance. */
static real T(random_real)(void)
{
    static const real special[] = {0, 1, -1, (real)(D(MIN_NORMAL) / 2), (real)-D(MIN_NORMAL)};
    if (random_bits() % 8 == 0) return special[random_bits() % (sizeof special / sizeof special[0])];
    return (real)ldexp(random_between(-2, 2), (int)(random_bits() % 41) - 20);
}

static void T(random_lanes)(real *lanes)
{
    for (int i = 0; i < LANES; ++i) lanes[i] = T(random_real)();
}

/* Draws all three operands. Two of them are often equal, for the comparisons. */
static void T(random_operands)(void)
{
    T(random_lanes)(T(lanes_a)), T(random_lanes)(T(lanes_b)), T(random_lanes)(T(lanes_c));
    for (int i = 0; i < LANES; ++i)
        if (random_bits() % 4 == 0) T(lanes_b)[i] = T(lanes_a)[i];
}

/* Puts nan in a, in b or in both, in some lanes. */
static void T(random_nans)(void)
{
    for (int i = 0; i < LANES; ++i) {
        const unsigned which = (unsigned)(random_bits() % 6);
        if (which == 1 || which == 3) T(lanes_a)[i] = (real)NAN;
        if (which == 2 || which == 3) T(lanes_b)[i] = (real)NAN;
    }
}

/* Whether two reals are equal, or are both nan. */
static int T(same)(real x, real y) { return x == y || (x != x && y != y); }

enum { D(ROUNDS) = 2000 };

/* The two operands as vectors, and the result as an array. */
#define A V(load)(T(lanes_a))
#define B V(load)(T(lanes_b))
#define C V(load)(T(lanes_c))
#define RESULT(v) V(store)(T(result), v)
#define EACH_LANE for (int i = 0; i < LANES; ++i)

static void T(test_set1_load_store)(void)
{
    T(random_operands)();
    RESULT(A);
    EACH_LANE CHECK(T(result)[i] == T(lanes_a)[i]);
    RESULT(V(set1)((real)-2.5));
    EACH_LANE CHECK(T(result)[i] == (real)-2.5);
}

/* Exactly n reals lie in the arena, against one of its ends. A read or write beyond them faults. */
static void T(test_load_till)(void)
{
    const arena memory = arena_of(4096);
    for (ptrdiff_t n = -1; n <= LANES + 1; ++n)
        for (int at_end = 0; at_end < 2; ++at_end) {
            const ptrdiff_t there = n < 0 ? 0 : n < LANES ? n : LANES;
            real *p = (real *)arena_place(memory, (size_t)there * sizeof(real), at_end);
            for (ptrdiff_t i = 0; i < there; ++i) p[i] = (real)(i + 1);
            ABOUT("n = %d, at_end = %d", (int)n, at_end);
            RESULT(V(load_till)(p, n, -7));
            EACH_LANE CHECK(T(result)[i] == (i < n ? (real)(i + 1) : (real)-7));
            RESULT(V(load_till)(p, n, -(real)INFINITY));
            EACH_LANE CHECK(T(result)[i] == (i < n ? (real)(i + 1) : -(real)INFINITY));
        }
}

static void T(test_store_till)(void)
{
    const arena memory = arena_of(4096);
    T(random_operands)();
    for (ptrdiff_t n = -1; n <= LANES + 1; ++n)
        for (int at_end = 0; at_end < 2; ++at_end) {
            const ptrdiff_t there = n < 0 ? 0 : n < LANES ? n : LANES;
            real *p = (real *)arena_place(memory, (size_t)there * sizeof(real), at_end);
            memset(memory.start, CANARY, (size_t)(memory.end - memory.start));
            V(store_till)(p, n, A);
            ABOUT("n = %d, at_end = %d", (int)n, at_end);
            for (ptrdiff_t i = 0; i < there; ++i) CHECK(p[i] == T(lanes_a)[i]);
            for (unsigned char *c = memory.start; c < memory.end; ++c)
                CHECK(*c == CANARY || (c >= (unsigned char *)p && c < (unsigned char *)(p + there)));
        }
}

static void T(test_add_sub_mul_div)(void)
{
    for (int round = 0; round < D(ROUNDS); ++round) {
        T(random_operands)();
        RESULT(V(add)(A, B));
        EACH_LANE CHECK(T(result)[i] == T(lanes_a)[i] + T(lanes_b)[i]);
        RESULT(V(sub)(A, B));
        EACH_LANE CHECK(T(result)[i] == T(lanes_a)[i] - T(lanes_b)[i]);
        RESULT(V(mul)(A, B));
        EACH_LANE CHECK(T(result)[i] == T(lanes_a)[i] * T(lanes_b)[i]);
        EACH_LANE T(lanes_b)[i] = T(lanes_b)[i] == 0 ? 3 : T(lanes_b)[i];
        RESULT(V(div)(A, B));
        EACH_LANE CHECK(T(result)[i] == T(lanes_a)[i] / T(lanes_b)[i]);
    }
}

/* fma is rounded once if FUSED is 1. Otherwise the compiler may fuse it or not. */
static void T(check_fma)(real got, real a, real b, real c)
{
    const volatile real product = a * b; // NOLINT(clang-analyzer-deadcode.DeadStores): where it is fused
    CHECK(got == T(fused)(a, b, c) || (!FUSED && got == product + c));
}

static void T(test_fma_fnma)(void)
{
    for (int round = 0; round < D(ROUNDS); ++round) {
        T(random_operands)();
        RESULT(V(fma)(A, B, C));
        EACH_LANE T(check_fma)(T(result)[i], T(lanes_a)[i], T(lanes_b)[i], T(lanes_c)[i]);
        RESULT(V(fnma)(A, B, C));
        EACH_LANE T(check_fma)(T(result)[i], -T(lanes_a)[i], T(lanes_b)[i], T(lanes_c)[i]);
    }
    EACH_LANE T(lanes_a)[i] = T(lanes_b)[i] = 1 + (real)D(EPS), T(lanes_c)[i] = -1;
    RESULT(V(fma)(A, B, C)); /* (1 + eps)^2 - 1 = 2 eps + eps^2, and a rounded product has lost the last term */
    const real fused = (real)(2 * D(EPS) + D(EPS) * D(EPS));
    EACH_LANE CHECK(T(result)[i] == fused || (!FUSED && T(result)[i] == (real)(2 * D(EPS))));
}

/* a b - p, where p is the product rounded once: there is one right answer, and fma has it too, because the error is
 * itself a real. This does not hold if the last of its bits would lie below the denormals. */
static void T(test_mul_error)(void)
{
    for (int round = 0; round < 10 * D(ROUNDS); ++round) {
        T(random_operands)();
        EACH_LANE if (fabs((double)T(lanes_a)[i]) < (double)D(EPS)) T(lanes_a)[i] = 0;
        EACH_LANE if (fabs((double)T(lanes_b)[i]) < (double)D(EPS)) T(lanes_b)[i] = -3;
        const vec product = V(mul)(A, B);
        real p[LANES];
        V(store)(p, product);
        RESULT(V(mul_error)(A, B, product));
        EACH_LANE
        {
            ABOUT("a = %a, b = %a", (double)T(lanes_a)[i], (double)T(lanes_b)[i]);
            CHECK(T(result)[i] == T(fused)(T(lanes_a)[i], T(lanes_b)[i], -p[i]));
        }
    }
}

static void T(test_max)(void)
{
    for (int round = 0; round < D(ROUNDS); ++round) {
        T(random_operands)();
        if (round % 2) T(random_nans)();
        if (round % 3 == 0) T(lanes_a)[random_bits() % LANES] = -(real)INFINITY;
        RESULT(V(max)(A, B));
        EACH_LANE CHECK(T(same)(T(result)[i], T(lanes_a)[i] > T(lanes_b)[i] ? T(lanes_a)[i] : T(lanes_b)[i]));
    }
}

static void T(test_eq_lt_select)(void)
{
    for (int round = 0; round < D(ROUNDS); ++round) {
        T(random_operands)();
        if (round % 2) T(random_nans)();
        const vec yes = V(set1)(1), no = V(set1)((real)NAN);
        RESULT(V(select)(V(eq)(A, B), yes, no));
        EACH_LANE CHECK(T(same)(T(result)[i], T(lanes_a)[i] == T(lanes_b)[i] ? 1 : (real)NAN));
        RESULT(V(select)(V(lt)(A, B), no, yes));
        EACH_LANE CHECK(T(same)(T(result)[i], T(lanes_a)[i] < T(lanes_b)[i] ? (real)NAN : 1));
        RESULT(V(select)(V(lt)(A, B), B, A));
        EACH_LANE CHECK(T(same)(T(result)[i], T(lanes_a)[i] < T(lanes_b)[i] ? T(lanes_b)[i] : T(lanes_a)[i]));
    }
}

static void T(test_any)(void)
{
    EACH_LANE T(lanes_a)[i] = 0, T(lanes_b)[i] = 1;
    CHECK(!V(any)(V(eq)(A, B)));
    CHECK(V(any)(V(lt)(A, B)));
    for (int lane = 0; lane < LANES; ++lane) {
        ABOUT("lane %d", lane);
        T(lanes_a)[lane] = 1;
        CHECK(V(any)(V(eq)(A, B)));
        T(lanes_a)[lane] = (real)NAN;
        CHECK(!V(any)(V(eq)(A, B)));
        CHECK((V(any)(V(eq)(A, A)) != 0) == (LANES > 1));
        T(lanes_a)[lane] = 0;
    }
}

/* A lane that is not added is not looked at: nan and infinity there change nothing. */
static void T(test_add_where_unless)(void)
{
    for (int round = 0; round < D(ROUNDS); ++round) {
        T(random_operands)();
        const mask equal = V(eq)(A, B);
        real x[LANES], both[LANES];
        EACH_LANE
        {
            both[i] = T(random_real)();
            x[i] = T(lanes_a)[i] == T(lanes_b)[i] ? both[i] : i % 2 ? (real)NAN : (real)INFINITY;
        }
        RESULT(V(add_where)(equal, C, V(load)(x)));
        EACH_LANE CHECK(T(result)[i] == T(lanes_c)[i] + (T(lanes_a)[i] == T(lanes_b)[i] ? both[i] : 0));
        EACH_LANE x[i] = T(lanes_a)[i] == T(lanes_b)[i] ? (i % 2 ? (real)NAN : -(real)INFINITY) : both[i];
        RESULT(V(add_unless)(equal, C, V(load)(x)));
        EACH_LANE CHECK(T(result)[i] == T(lanes_c)[i] + (T(lanes_a)[i] == T(lanes_b)[i] ? 0 : both[i]));
        EACH_LANE x[i] = T(lanes_a)[i] == T(lanes_b)[i] ? -both[i] : both[i];
        RESULT(V(mul_unless)(equal, V(load)(x), C));
        EACH_LANE CHECK(T(result)[i] == (T(lanes_a)[i] == T(lanes_b)[i] ? 0 : both[i] * T(lanes_c)[i]));
        EACH_LANE x[i] = (real)NAN;
        RESULT(V(add_where)(equal, C, V(load)(x)));
        EACH_LANE CHECK((T(result)[i] != T(result)[i]) == (T(lanes_a)[i] == T(lanes_b)[i]));
        RESULT(V(add_unless)(equal, C, V(load)(x)));
        EACH_LANE CHECK((T(result)[i] != T(result)[i]) == (T(lanes_a)[i] != T(lanes_b)[i]));
    }
}

/* The low bits of the rounder's mantissa hold a biased exponent, from 0 (which gives 0) to the largest one. */
static void T(test_to_exponent)(void)
{
    for (int e = 0; e <= 2 * D(BIAS); e += LANES) {
        EACH_LANE T(lanes_a)[i] = (real)(D(ROUNDER) + e + i);
        RESULT(V(to_exponent)(A));
        EACH_LANE CHECK(e + i > 2 * D(BIAS) || T(result)[i] == (real)(e + i ? ldexp(1, e + i - D(BIAS)) : 0));
    }
}

static void T(check_split)(void)
{
    vec scale;
    real scales[LANES];
    RESULT(V(split)(A, &scale));
    V(store)(scales, scale);
    EACH_LANE
    {
        const double u = (double)T(lanes_a)[i], k = (double)T(result)[i];
        ABOUT("u = %a, k = %a", u, k);
        CHECK(k == floor(k) && k >= 0);
        CHECK((double)scales[i] == ldexp(1, -(int)k));
        /* A ulp or so beyond the border does no harm. */
        CHECK(ldexp(u, -(int)k) >= sqrt(0.5) * (1 - 2 * D(EPS)) && ldexp(u, -(int)k) < sqrt(2) * (1 + 2 * D(EPS)));
    }
}

/* u is around the powers of two, around 2^k sqrt(2) where k jumps, and anywhere. */
static void T(test_split)(void)
{
    for (int k = 0; k < D(BIAS) - 6; ++k)
        for (int ulps = -20; ulps <= 20; ulps += LANES) {
            EACH_LANE T(lanes_a)[i] = (real)ldexp(1 + abs(ulps + i) * D(EPS), k);
            T(check_split)();
            EACH_LANE T(lanes_a)[i] = (real)ldexp(1 - abs(ulps + i) * (k > 0 ? D(EPS) : 0) / 2, k);
            T(check_split)();
            EACH_LANE T(lanes_a)[i] = (real)ldexp(sqrt(2) + (ulps + i) * D(EPS), k);
            T(check_split)();
            EACH_LANE T(lanes_a)[i] = (real)ldexp(random_between(1, 2), k);
            T(check_split)();
        }
}

static void T(test_first_hmax)(void)
{
    for (int lane = 0; lane < LANES; ++lane) {
        for (int round = 0; round < 50; ++round) {
            T(random_operands)();
            T(lanes_a)[lane] = (real)0x1p60;
            CHECK(V(hmax)(A) == (real)0x1p60);
            CHECK(V(first)(A) == T(lanes_a)[0]);
        }
        EACH_LANE T(lanes_a)[i] = -(real)INFINITY;
        CHECK(V(hmax)(A) == -(real)INFINITY);
        T(lanes_a)[lane] = -3;
        CHECK(V(hmax)(A) == -3);
        T(lanes_a)[lane] = (real)INFINITY;
        CHECK(V(hmax)(A) == (real)INFINITY);
    }
}

/* hsum adds in double, the upper half of the lanes to the lower half, until one lane is left. So it has the same bits
 * on every machine. */
static void T(test_hsum)(void)
{
    for (int round = 0; round < D(ROUNDS); ++round) {
        T(random_operands)();
        volatile double sum[LANES];
        EACH_LANE sum[i] = (double)T(lanes_a)[i];
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) sum[i] = sum[i] + sum[i + half];
        CHECK(V(hsum)(A) == sum[0]);
    }
    EACH_LANE T(lanes_a)[i] = i ? 1 : (real)0x1p25; /* a sum in float32 would lose the ones */
    CHECK(V(hsum)(A) == 0x1p25 + LANES - 1);
}

static void T(test_transpose)(void)
{
    vec rows[LANES];
    EACH_LANE
    {
        for (int k = 0; k < LANES; ++k) T(lanes_a)[k] = (real)(100 * i + k);
        rows[i] = A;
    }
    V(transpose)(rows);
    EACH_LANE
    {
        RESULT(rows[i]);
        for (int k = 0; k < LANES; ++k) CHECK(T(result)[k] == (real)(100 * k + i));
    }
}

static void T(test_operations)(void)
{
    RUN(set1_load_store);
    RUN(load_till);
    RUN(store_till);
    RUN(add_sub_mul_div);
    RUN(fma_fnma);
    RUN(mul_error);
    RUN(max);
    RUN(eq_lt_select);
    RUN(any);
    RUN(add_where_unless);
    RUN(to_exponent);
    RUN(split);
    RUN(first_hmax);
    RUN(hsum);
    RUN(transpose);
}

#undef A
#undef B
#undef C
#undef RESULT
#undef EACH_LANE
