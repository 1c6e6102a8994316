/* test_halves.h - half precision in the vector layer: every half is widened, and floats of all kinds are narrowed,
 * against the definition in half.h. Halves are computed in float, so these tests are no template. */

static vec_f32 widen(half_format f, const uint16_t *p) { return f.fraction == 10 ? widen_f16(p) : widen_bf16(p); }

static void narrow(half_format f, uint16_t *p, vec_f32 v)
{
    if (f.fraction == 10)
        narrow_f16(p, v);
    else
        narrow_bf16(p, v);
}

/* LANES halves are read and written, and no more: they lie in an arena, against one of its ends. */
static void check_widen(half_format f)
{
    const arena memory = arena_of(4096);
    for (int half = 0; half <= 0xffff; half += LANES_f32) {
        float got[LANES_f32];
        uint16_t *p = (uint16_t *)arena_place(memory, LANES_f32 * sizeof *p, half / LANES_f32 % 2);
        for (int i = 0; i < LANES_f32; ++i) p[i] = (uint16_t)(half + i);
        store_f32(got, widen(f, p));
        for (int i = 0; i < LANES_f32; ++i) {
            const double exact = value_of_half(f, p[i]);
            ABOUT("%s %#x is %a, not %a", f.name, p[i], (double)got[i], exact);
            CHECK(isnan(exact) ? isnan(got[i]) : got[i] == exact && !signbit(got[i]) == !signbit(exact));
        }
    }
}

static void test_widen_f16(void) { check_widen(f16_format); }
static void test_widen_bf16(void) { check_widen(bf16_format); }

/* Floats are collected here until a vector is full. */
static struct {
    float x[LANES_f32];
    int n;
    arena memory;
} floats;

static void check_floats(half_format f)
{
    const int at_end = (int)(random_bits() % 2), bytes = LANES_f32 * (int)sizeof(uint16_t);
    uint16_t *p = (uint16_t *)arena_place(floats.memory, (size_t)bytes, at_end);
    unsigned char *beside = (unsigned char *)p + (at_end ? -1 : bytes);
    narrow(f, p, load_f32(floats.x));
    CHECK(*beside == CANARY);
    for (int i = 0; i < floats.n; ++i) {
        const uint16_t nearest = nearest_half(f, floats.x[i]);
        ABOUT("%a to %s is %#x, not %#x", (double)floats.x[i], f.name, p[i], nearest);
        CHECK(isnan(floats.x[i]) ? is_nan_half(f, p[i]) : p[i] == nearest);
    }
    memset(p, CANARY, (size_t)bytes);
    floats.n = 0;
}

static void add_float(half_format f, float x)
{
    floats.x[floats.n++ % LANES_f32] = x;
    if (floats.n == LANES_f32) check_floats(f);
}

/* Narrows each half, and the floats where the rounding turns from one half to the next: midway between them, and on
 * either side. Beyond the largest half, the next one would be where its exponent overflows. */
static void narrow_around_halves(half_format f)
{
    for (int half = 0; half < infinite_half(f); ++half)
        for (int sign = -1; sign <= 1; sign += 2) {
            const double here = value_of_half(f, (uint16_t)half);
            const double before = half ? value_of_half(f, (uint16_t)(half - 1)) : 0;
            const double step =
                half + 1 == infinite_half(f) ? here - before : value_of_half(f, (uint16_t)(half + 1)) - here;
            const float middle = (float)(sign * (here + step / 2)), exact = (float)(sign * here);
            add_float(f, exact), add_float(f, middle);
            add_float(f, nextafterf(exact, INFINITY)), add_float(f, nextafterf(exact, -INFINITY));
            add_float(f, nextafterf(middle, INFINITY)), add_float(f, nextafterf(middle, -INFINITY));
        }
}

/* Narrows floats that are a few thousand patterns apart; and every kind of nan, including those whose bits lie below a
 * half's. */
static void narrow_all_floats(half_format f)
{
    const uint64_t step = (uint64_t)2000 * THINNED;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 1 + random_bits() % (2 * step))
        add_float(f, float_of_bits((uint32_t)bits));
    for (int bit = 0; bit < 23; ++bit)
        for (uint32_t infinity = 0x7f800000; infinity; infinity = infinity == 0x7f800000 ? 0xff800000 : 0) {
            add_float(f, float_of_bits(infinity | (uint32_t)1 << bit));
            add_float(f, float_of_bits(infinity | (((uint32_t)2 << bit) - 1)));
        }
    add_float(f, INFINITY), add_float(f, -INFINITY), add_float(f, 0.0f), add_float(f, -0.0f);
}

static void check_narrow(half_format f)
{
    floats.memory = arena_of(4096), floats.n = 0;
    narrow_around_halves(f);
    narrow_all_floats(f);
    while (floats.n) add_float(f, 65520.0f); /* the last vector; and where float16 ends */
}

static void test_narrow_f16(void) { check_narrow(f16_format); }
static void test_narrow_bf16(void) { check_narrow(bf16_format); }

static void test_halves(void)
{
    RUN_TEST(test_widen_f16);
    RUN_TEST(test_widen_bf16);
    RUN_TEST(test_narrow_f16);
    RUN_TEST(test_narrow_bf16);
}
