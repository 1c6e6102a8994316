/* test_accuracy.h - template: holds the functions of exp.h to the error bounds that exp.h states, by dense sweeps
 * against the next wider type. The worst error of a sweep is printed with its argument. */

/* |got - exact| in eps of `exact`, which is 0 or more. A result below the normal numbers has the absolute precision of
 * the smallest normal number. */
static double T(error)(real got, D(wide) exact)
{
    const D(wide) size = exact > D(MIN_NORMAL) ? exact : D(MIN_NORMAL);
    const D(wide) difference = got > exact ? got - exact : exact - got;
    return (double)(difference / size / D(EPS));
}

/* The same for an exact result of either sign. */
static double T(error_of_either)(real got, D(wide) exact)
{
    return exact < 0 ? T(error)(-got, -exact) : T(error)(got, exact);
}

typedef struct {
    double error, ratio; /* the error in eps, and as a fraction of the bound */
    double where, row_max;
} T(worst);

static void T(note_worst)(T(worst) * worst, double error, double allowed, real where, real row_max)
{
    if (error / allowed <= worst->ratio) return;
    worst->error = error, worst->ratio = error / allowed;
    worst->where = (double)where, worst->row_max = (double)row_max;
}

/* Arguments are collected here until a block is full. */
enum { D(BLOCK) = 1024 };

typedef struct {
    real x[D(BLOCK)];
    int n;
} T(block);

/* Whether z - m is rounded. It is rounded only where that cannot matter: more than 32 below a maximum that is 64 or
 * more. */
static int T(is_rounded)(real m, double below) { return fabs((double)m) >= 64 && below > 32; }

/* The bound of exp_shifted in eps, with the rounding of z - m if there is one. At m = 0 `top` is exact. */
static double T(exp_bound)(real m, double below)
{
    return (m == 0 ? 1.1 : FUSED ? 1.3 : 1.7) * (1 + 0.03 * below) + (T(is_rounded)(m, below) ? 0.5 * below : 0);
}

/* Checks exp(z - m) of a block of logits z <= m. worst[1] is for the differences that are rounded. */
static void T(check_exp)(const T(block) * z, real m, T(worst) * worst)
{
    real got[D(BLOCK)];
    const T(shift) shift = T(shift_of)(V(set1)(m), T(headroom_of)(HEADROOM));
    const int near = V(first)(shift.base) == 0;
    for (int i = 0; i < D(BLOCK); i += LANES)
        V(store)(got + i,
                 near ? T(exp_shifted)(V(load)(z->x + i), shift, 1) : T(exp_shifted)(V(load)(z->x + i), shift, 0));
    for (int i = 0; i < z->n; ++i) {
        const D(wide) below = (D(wide))m - (D(wide))z->x[i];
        const D(wide) exact = (D(wide))V(first)(shift.top) * D(wide_exp)(-below);
        if (exact < D(MIN_NORMAL) && got[i] == 0) continue;
        const double allowed = T(exp_bound)(m, (double)below), error = T(error)(got[i], exact);
        if (!(error <= allowed))
            ABOUT("exp(z - m), m = %a, z = %a: %a is %.3f eps off, allowed %.3f", (double)m, (double)z->x[i],
                  (double)got[i], error, allowed);
        CHECK(error <= allowed);
        T(note_worst)(worst + T(is_rounded)(m, (double)below), error, allowed, z->x[i], m);
    }
}

static void T(add_point)(T(block) * z, real x, real m, T(worst) * worst)
{
    z->x[z->n++] = x;
    if (z->n < D(BLOCK)) return;
    T(check_exp)(z, m, worst);
    z->n = 0;
}

/* Checks the last points of a sweep, in a block that is filled up with m. */
static void T(last_points)(T(block) * z, real m, T(worst) * worst)
{
    for (int i = z->n; i < D(BLOCK); ++i) z->x[i] = m;
    T(check_exp)(z, m, worst);
    z->n = 0;
}

static D(bits) T(bits_of)(real x)
{
    D(bits) bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static real T(of_bits)(D(bits) bits)
{
    real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The distance from the maximum at which the exp leaves the normal numbers, and a little more. */
static double T(depth)(void) { return 0.6931471805599453 * (D(BIAS) + HEADROOM + 3); }

/* Row maxima of every kind: small, on either side of 64 where exp_shifted changes its base, large, and denormal; and
 * those whose `top` has the largest error: a few that are known, and some that find_worst_maxima finds. */
enum { D(WORST_MAXIMA) = 6 };
static double T(row_maxima)[] = {0,
                                 0.3,
                                 1,
                                 0.34657,
                                 0.34658,
                                 17.3,
                                 42.1,
                                 63.9,
                                 63.999996,
                                 64,
                                 64.01,
                                 100.5,
                                 1000,
                                 1e4,
                                 1e8,
                                 1e30,
                                 D(MIN_NORMAL) / 4,
                                 5.19671631,
                                 63.92969,
                                 4.49230,
                                 12.81280,
                                 [21 + D(WORST_MAXIMA) - 1] = 0};

/* The error of `top` in eps: 2^HEADROOM exp(r0), where r0 is what is left of m beside multiples of ln 2. */
static double T(top_error)(real m)
{
    const D(wide) top = V(first)(T(shift_of)(V(set1)(m), T(headroom_of)(HEADROOM)).top);
    D(wide) exact = D(wide_exp)(m) * TWO_TO_HEADROOM;
    while (exact > (D(wide))1.5 * top) exact /= 2;
    while (exact < (D(wide))0.75 * top) exact *= 2;
    return T(error_of_either)((real)top, exact);
}

/* Replaces the last maxima by those with the largest errors of `top`, of either sign. Both signs of them are tested. */
static void T(find_worst_maxima)(void)
{
    const size_t n = sizeof T(row_maxima) / sizeof T(row_maxima)[0];
    for (int which = 0; which < D(WORST_MAXIMA); ++which) {
        double largest = 0;
        for (int i = 0; i < 40000 / THINNED; ++i) {
            const real m = (real)random_between(-64, 64);
            const double error = T(top_error)(m);
            if (error > largest) largest = error, T(row_maxima)[n - 1 - (size_t)which] = fabs((double)m);
        }
    }
}

/* Arguments at equal distances below each maximum, at random within each step; and the reals next to the maximum. */
static void T(test_exp_below_any_maximum)(void)
{
    const int points = (sizeof(real) == sizeof(float) ? 500000 : 100000) / THINNED;
    T(worst) worst[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof T(row_maxima) / sizeof T(row_maxima)[0]; ++i)
        for (int sign = -1; sign <= 1; sign += 2) {
            const real m = (real)(sign * T(row_maxima)[i]);
            T(block) z;
            z.n = 0;
            for (int k = 0; k < points; ++k)
                T(add_point)(&z, (real)((double)m - T(depth)() * (k + random_between(0, 1)) / points), m, worst);
            real next = m;
            for (int k = 0; k < 1000; ++k) {
                T(add_point)(&z, next, m, worst);
                next = next > 0   ? T(of_bits)(T(bits_of)(next) - 1)
                       : next < 0 ? T(of_bits)(T(bits_of)(next) + 1)
                                  : -T(of_bits)(1);
            }
            T(last_points)(&z, m, worst);
        }
    for (int rounded = 0; rounded < 2; ++rounded)
        printf("%s exp(z - m), z - m %s, %d-bit: at worst %.3f eps, %.3f of what is allowed, at m = %.9g, z = %.9g\n",
               tally.isa, rounded ? "rounded" : "exact", (int)sizeof(real) * 8, worst[rounded].error,
               worst[rounded].ratio, worst[rounded].row_max, worst[rounded].where);
}

/* m = 0, so that z is the argument of exp. The reals from -depth to -2^-40 are taken in steps of their bits: as densely
 * as they lie. */
static void T(test_exp_of_dense_arguments)(void)
{
    const D(bits) low = T(bits_of)((real)0x1p-40), high = T(bits_of)((real)T(depth)());
    const double points = sizeof(real) == sizeof(float) ? 2e7 : 1e6;
    const D(bits) step = (D(bits))((double)(high - low) * THINNED / points);
    T(worst) worst[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    T(block) z;
    z.n = 0;
    for (D(bits) bits = low; bits < high; bits += step + random_bits() % 2)
        T(add_point)(&z, -T(of_bits)(bits), 0, worst);
    T(last_points)(&z, 0, worst);
    printf("%s exp(x) %d-bit: at worst %.3f eps, %.3f of what is allowed, at x = %.9g\n", tally.isa,
           (int)sizeof(real) * 8, worst->error, worst->ratio, worst->where);
}

static real T(exp_one)(real z, real m)
{
    return V(first)(T(exp_shifted)(V(set1)(z), T(shift_of)(V(set1)(m), T(headroom_of)(HEADROOM)), 0));
}

/* Whether `top` is 2^HEADROOM times a factor between the roots of 1/2 and 2. */
static int T(is_top)(real top) { return top >= (real)0.7 * TWO_TO_HEADROOM && top <= (real)1.42 * TWO_TO_HEADROOM; }

/* These results are exact: `top` at the maximum, 0 far below it, and nan for nan. */
static void T(test_exp_at_the_edges)(void)
{
    for (size_t i = 0; i < sizeof T(row_maxima) / sizeof T(row_maxima)[0]; ++i)
        for (int sign = -1; sign <= 1; sign += 2) {
            const real m = (real)(sign * T(row_maxima)[i]);
            ABOUT("m = %a", (double)m);
            const real top = V(first)(T(shift_of)(V(set1)(m), T(headroom_of)(HEADROOM)).top);
            CHECK(T(exp_one)(m, m) == top && T(is_top)(top));
            CHECK(T(exp_one)(-(real)INFINITY, m) == 0);
            CHECK(T(exp_one)(-(real)ldexp(1, D(BIAS)), m) == 0);
            CHECK(T(exp_one)((real)(m - T(depth)() - fabs((double)m) * D(EPS)), m) == 0);
            const real nan = T(exp_one)((real)NAN, m);
            CHECK(nan != nan);
        }
    for (int k = 0; k < 100000 / THINNED; ++k) {
        const real m = (real)ldexp(random_between(-1, 1), (int)(random_bits() % 60) - 30);
        ABOUT("m = %a", (double)m);
        const real top = V(first)(T(shift_of)(V(set1)(m), T(headroom_of)(HEADROOM)).top);
        CHECK(T(exp_one)(m, m) == top && T(is_top)(top));
    }
}

/* Every lane may have its own maximum, as in the lane kernel. */
static void T(test_exp_shift_of_each_lane)(void)
{
    for (int round = 0; round < 1000; ++round) {
        real m[LANES], z[LANES], got[LANES];
        for (int i = 0; i < LANES; ++i) {
            m[i] = (real)ldexp(random_between(-1, 1), (int)(random_bits() % 12));
            z[i] = m[i] - (real)random_between(0, 20);
        }
        V(store)(got, T(exp_shifted)(V(load)(z), T(shift_of)(V(load)(m), T(headroom_of)(HEADROOM)), 0));
        for (int i = 0; i < LANES; ++i) CHECK(got[i] == T(exp_one)(z[i], m[i]));
    }
}

/* A random real in the i-th of n equal parts of (0, 1). */
static real T(below_1)(int i, int n)
{
    const real x = (real)((i + random_between(0, 1)) / n);
    return x < 1 ? x : 1 - (real)D(EPS) / 2;
}

static void T(check_log1p)(const T(block) * t, T(worst) * worst)
{
    real got[D(BLOCK)];
    for (int i = 0; i < D(BLOCK); i += LANES) V(store)(got + i, T(log1p)(V(load)(t->x + i)));
    for (int i = 0; i < t->n; ++i) {
        const double error = T(error_of_either)(got[i], D(wide_log1p)((D(wide))t->x[i]));
        if (!(error <= 2)) ABOUT("log1p(%a) = %a: %.3f eps off", (double)t->x[i], (double)got[i], error);
        CHECK(error <= 2);
        T(note_worst)(worst, error, 2, t->x[i], 0);
    }
}

/* t is from the smallest denormal number to 1e30 in steps of the bits, and at equal distances between 0 and 8. Negative
 * t go from the smallest denormal number to the real next to -1, and lie at equal distances too. */
static void T(test_log1p)(void)
{
    const D(bits) high = T(bits_of)((real)1e30);
    const int points = (sizeof(real) == sizeof(float) ? 10000000 : 1000000) / THINNED / D(BLOCK) * D(BLOCK);
    const D(bits) step = high / (D(bits))points;
    T(worst) worst = {0, 0, 0, 0};
    T(block) t;
    t.n = D(BLOCK);
    D(bits) bits = 1;
    for (int k = 0; k < points; k += D(BLOCK)) {
        for (int i = 0; i < D(BLOCK); ++i, bits += step) t.x[i] = T(of_bits)(bits);
        T(check_log1p)(&t, &worst);
        for (int i = 0; i < D(BLOCK); ++i) t.x[i] = (real)(8 * (k + i + random_between(0, 1)) / points);
        T(check_log1p)(&t, &worst);
        const double span = (double)T(bits_of)((real)1) - 1;
        for (int i = 0; i < D(BLOCK); ++i) t.x[i] = -T(of_bits)((D(bits))(1 + span * (k + i) / points));
        T(check_log1p)(&t, &worst);
        for (int i = 0; i < D(BLOCK); ++i) t.x[i] = -T(below_1)(k + i, points);
        T(check_log1p)(&t, &worst);
    }
    printf("%s log1p(t) %d-bit: at worst %.3f eps, at t = %.9g\n", tally.isa, (int)sizeof(real) * 8, worst.error,
           worst.where);
    CHECK(V(first)(T(log1p)(V(set1)(0))) == 0);
    const real nan = V(first)(T(log1p)(V(set1)((real)NAN)));
    CHECK(nan != nan);
}

static void T(check_log)(const T(block) * x, T(worst) * worst)
{
    real got[D(BLOCK)];
    for (int i = 0; i < D(BLOCK); i += LANES) V(store)(got + i, T(log)(V(load)(x->x + i)));
    for (int i = 0; i < x->n; ++i) {
        const double error = T(error_of_either)(got[i], D(wide_log)((D(wide))x->x[i]));
        if (!(error <= 2)) ABOUT("log(%a) = %a: %.3f eps off", (double)x->x[i], (double)got[i], error);
        CHECK(error <= 2);
        T(note_worst)(worst, error, 2, x->x[i], 0);
    }
}

/* x is from the smallest normal number to 2^64 in steps of the bits, and at equal distances between 1/2 and 2. */
static void T(test_log)(void)
{
    const double low = (double)T(bits_of)((real)D(SMALLEST_NORMAL)), high = (double)T(bits_of)((real)0x1p64);
    const int points = (sizeof(real) == sizeof(float) ? 4000000 : 500000) / THINNED / D(BLOCK) * D(BLOCK);
    T(worst) worst = {0, 0, 0, 0};
    T(block) x;
    x.n = D(BLOCK);
    for (int k = 0; k < points; k += D(BLOCK)) {
        for (int i = 0; i < D(BLOCK); ++i)
            x.x[i] = T(of_bits)((D(bits))(low + (high - low) * (k + i + random_between(0, 1)) / points));
        x.x[0] = k == 0 ? (real)D(SMALLEST_NORMAL) : (real)0x1p64;
        T(check_log)(&x, &worst);
        for (int i = 0; i < D(BLOCK); ++i) x.x[i] = (real)(0.5 + 1.5 * (k + i + random_between(0, 1)) / points);
        T(check_log)(&x, &worst);
    }
    printf("%s log(x) %d-bit: at worst %.3f eps, at x = %.9g\n", tally.isa, (int)sizeof(real) * 8, worst.error,
           worst.where);
    CHECK(V(first)(T(log)(V(set1)(1))) == 0);
    const real nan = V(first)(T(log)(V(set1)((real)NAN)));
    CHECK(nan != nan);
}

/* ---- exp((z - m) / T) ----------------------------------------------------------------------------------------------
 */

/* Temperatures: 1 / T is exact, nearly exact, or far from exact. */
static const double T(temperatures)[] = {1, 0.01, 100, 1.7, 1.0 / 3, 0.7, 4, 3, 1e-6, 12345.678};
enum { D(N_TEMPERATURES) = sizeof T(temperatures) / sizeof T(temperatures)[0] };

static T(tempered) T(tempered_at)(real m, double temperature)
{
    const T(inverses) inverse = T(one_temperature)(temperature);
    return T(tempered_of)(V(set1)(m), &inverse, T(headroom_of)(HEADROOM));
}

/* The error of exp_tempered is at most 1.15 times that of exp_shifted at (z - m) / T: neither 1 / T nor the product
 * with it may cost more than a rounding. If either were rounded to a real, this would cost up to half an eps for each
 * unit of z / T. */
static void T(check_tempered)(const T(block) * z, real m, double temperature, T(worst) * worst)
{
    real got[D(BLOCK)];
    const T(tempered) t = T(tempered_at)(m, temperature);
    for (int i = 0; i < D(BLOCK); i += LANES) V(store)(got + i, T(exp_tempered)(V(load)(z->x + i), &t));
    for (int i = 0; i < z->n; ++i) {
        const D(wide) below = ((D(wide))m - (D(wide))z->x[i]) / (D(wide))temperature;
        const D(wide) exact = (D(wide))V(first)(t.shift.top) * D(wide_exp)(-below);
        if (exact < D(MIN_NORMAL) && got[i] == 0) continue;
        const real m_over_t = (real)((double)m / temperature);
        const double allowed = 1.15 * T(exp_bound)(m_over_t, (double)below), error = T(error)(got[i], exact);
        if (!(error <= allowed))
            ABOUT("exp((z - m) / T), T = %.9g, m = %a, z = %a: %a is %.3f eps off, allowed %.3f", temperature,
                  (double)m, (double)z->x[i], (double)got[i], error, allowed);
        CHECK(error <= allowed);
        T(note_worst)(worst + T(is_rounded)(m_over_t, (double)below), error, allowed, z->x[i], m);
    }
}

/* The maxima are those above, in units of T. Logits lie at equal distances below them: near in the first blocks, and as
 * deep as exps go in the last. */
static void T(test_exp_tempered)(void)
{
    const int blocks = THINNED > 1 ? 3 : 8;
    T(worst) worst[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    for (int i = 0; i < D(N_TEMPERATURES); ++i)
        for (size_t k = 0; k < sizeof T(row_maxima) / sizeof T(row_maxima)[0]; ++k)
            for (int sign = -1; sign <= 1; sign += 2)
                for (int b = 1; b <= blocks; ++b) {
                    const double temperature = T(temperatures)[i];
                    const real m = (real)(sign * T(row_maxima)[k] * (k % 2 ? temperature : 1));
                    T(block) z = {{0}, D(BLOCK)};
                    for (int at = 0; at < D(BLOCK); ++at) {
                        const double below = T(depth)() * temperature * random_between(0, 1) * b * b / blocks / blocks;
                        z.x[at] = (real)((double)m - below);
                    }
                    T(check_tempered)(&z, m, temperature, worst);
                }
    for (int rounded = 0; rounded < 2; ++rounded)
        printf("%s exp((z - m) / T), z - m %s, %d-bit: at worst %.3f eps, %.3f of what is allowed, at m = %.9g, z = "
               "%.9g\n",
               tally.isa, rounded ? "rounded" : "exact", (int)sizeof(real) * 8, worst[rounded].error,
               worst[rounded].ratio, worst[rounded].row_max, worst[rounded].where);
}

static real T(tempered_one)(real z, real m, double temperature)
{
    const T(tempered) t = T(tempered_at)(m, temperature);
    return V(first)(T(exp_tempered)(V(set1)(z), &t));
}

/* The result at the maximum is exactly `top`, at any temperature. It is 0 far below, and nan for nan. */
static void T(test_exp_tempered_at_the_edges)(void)
{
    for (int k = 0; k < 100000 / THINNED; ++k) {
        const real m = (real)ldexp(random_between(-1, 1), (int)(random_bits() % 60) - 30);
        const double any = ldexp(random_between(1, 2), (int)(random_bits() % 199) - 100);
        const double temperature = k % 3 ? T(temperatures)[k % D(N_TEMPERATURES)] : any;
        ABOUT("m = %a, T = %a", (double)m, temperature);
        const real top = V(first)(T(tempered_at)(m, temperature).shift.top);
        CHECK(T(tempered_one)(m, m, temperature) == top && T(is_top)(top));
        CHECK(T(tempered_one)(-(real)INFINITY, m, temperature) == 0);
        CHECK(T(tempered_one)(-(real)ldexp(1, D(BIAS)), m, temperature) == 0);
        CHECK(T(tempered_one)((real)(m - T(depth)() * temperature - fabs((double)m) * D(EPS)), m, temperature) == 0);
        const real of_nan = T(tempered_one)((real)NAN, m, temperature);
        CHECK(of_nan != of_nan);
    }
}

/* ---- exp(y) - 1 and the softcap -------------------------------------------------------------------------------------
 */

/* The error of exp(y) is at most that of exp_shifted with m = 0. */
static void T(check_expm1)(const T(block) * y, T(worst) * worst)
{
    real got[D(BLOCK)], exps[D(BLOCK)];
    for (int i = 0; i < D(BLOCK); i += LANES) {
        vec e;
        V(store)(got + i, T(expm1_below_0)(V(load)(y->x + i), &e));
        V(store)(exps + i, e);
    }
    for (int i = 0; i < D(BLOCK); ++i) {
        const D(wide) exact = D(wide_expm1)((D(wide))y->x[i]), exact_exp = D(wide_exp)((D(wide))y->x[i]);
        const double error = T(error)(-got[i], -exact), exp_error = T(error)(exps[i], exact_exp);
        ABOUT("y = %a: expm1 is %a, %.3f eps off, exp is %a, %.3f eps off", (double)y->x[i], (double)got[i], error,
              (double)exps[i], exp_error);
        CHECK(error <= 2);
        CHECK(exp_error <= T(exp_bound)(0, -(double)y->x[i]) || (exact_exp < 2 * D(MIN_NORMAL) && exps[i] == 0));
        T(note_worst)(worst, error, 2, y->x[i], 0);
    }
}

/* y is negative, by steps of the bits down to where exp(y) is 0, and at equal distances. */
static void T(test_expm1_below_0)(void)
{
    const D(bits) high = T(bits_of)((real)(T(depth)() + 10));
    const int points = (sizeof(real) == sizeof(float) ? 1000000 : 150000) / THINNED / D(BLOCK) * D(BLOCK);
    T(worst) worst = {0, 0, 0, 0};
    T(block) y;
    for (int k = 0; k < points; k += D(BLOCK)) {
        for (int i = 0; i < D(BLOCK); ++i)
            y.x[i] = -T(of_bits)((D(bits))((double)high * (k + i + random_between(0, 1)) / points));
        T(check_expm1)(&y, &worst);
        for (int i = 0; i < D(BLOCK); ++i)
            y.x[i] = (real)(-(k % 3 ? 3 : T(depth)()) * (k + i + random_between(0, 1)) / points);
        T(check_expm1)(&y, &worst);
    }
    printf("%s exp(y) - 1 %d-bit: at worst %.3f eps, at y = %.9g\n", tally.isa, (int)sizeof(real) * 8, worst.error,
           worst.where);
    vec e;
    CHECK(V(first)(T(expm1_below_0)(V(set1)(0), &e)) == 0 && V(first)(e) == 1);
    CHECK(V(first)(T(expm1_below_0)(V(set1)(-(real)INFINITY), &e)) == -1 && V(first)(e) == 0);
    const real of_nan = V(first)(T(expm1_below_0)(V(set1)((real)NAN), &e)), exp_of_nan = V(first)(e);
    CHECK(of_nan != of_nan && exp_of_nan != exp_of_nan);
}

/* exp(x) - 1 - x by its series: |x| is at most 2 ln 2. */
static D(wide) T(exact_rest)(D(wide) x)
{
    D(wide) sum = 1;
    for (int k = 40; k > 2; --k) sum = 1 + sum * x / k;
    return x * x / 2 * sum;
}

/* The bounds that exp.h states, of exp(x) - 1 and of exp(x) - 1 - x. */
static const double T(near_0_bound)[] = {3, 5.5};

static void T(check_expm1_near_0)(const T(block) * x, T(worst) worst[2])
{
    real got[2][D(BLOCK)];
    for (int i = 0; i < D(BLOCK); i += LANES) {
        vec rest;
        V(store)(got[0] + i, T(expm1_near_0)(V(load)(x->x + i), &rest));
        V(store)(got[1] + i, rest);
    }
    for (int i = 0; i < x->n; ++i) {
        const D(wide) wide = (D(wide))x->x[i], exact[] = {D(wide_expm1)(wide), T(exact_rest)(wide)};
        for (int which = 0; which < 2; ++which) {
            const double error = T(error_of_either)(got[which][i], exact[which]), allowed = T(near_0_bound)[which];
            ABOUT("x = %a: exp(x) - 1%s is %a, %.3f eps off", (double)x->x[i], which ? " - x" : "",
                  (double)got[which][i], error);
            CHECK(error <= allowed);
            T(note_worst)(worst + which, error, allowed, x->x[i], 0);
        }
    }
}

/* x has either sign. It is in steps of the bits from 2^-40, or where its square is a normal number, and at equal
 * distances. */
static void T(test_expm1_near_0)(void)
{
    const double largest = 1.3862943, low = (double)T(bits_of)((real)0x1p-40);
    const double high = (double)T(bits_of)((real)largest);
    const int points = (sizeof(real) == sizeof(float) ? 2000000 : 200000) / THINNED / D(BLOCK) * D(BLOCK);
    T(worst) worst[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    T(block) x;
    x.n = D(BLOCK);
    for (int k = 0; k < points; k += D(BLOCK)) {
        for (int i = 0; i < D(BLOCK); ++i)
            x.x[i] = (i % 2 ? 1 : -1) * T(of_bits)((D(bits))(low + (high - low) * (k + i) / points));
        T(check_expm1_near_0)(&x, worst);
        for (int i = 0; i < D(BLOCK); ++i)
            x.x[i] = (real)((i % 2 ? largest : -largest) * (k + i + random_between(0, 1)) / points);
        T(check_expm1_near_0)(&x, worst);
    }
    for (int which = 0; which < 2; ++which)
        printf("%s exp(x) - 1%s near 0, %d-bit: at worst %.3f eps, at x = %.9g\n", tally.isa, which ? " - x" : "",
               (int)sizeof(real) * 8, worst[which].error, worst[which].where);
    vec rest;
    CHECK(V(first)(T(expm1_near_0)(V(set1)(0), &rest)) == 0 && V(first)(rest) == 0);
}

/* c tanh(x / c) is within 4 eps. If x / c is no normal number, it is within 4 of the last places that x / c has. The
 * slope is within 4 eps (1 + |x / c|), or is 0 if it is hardly more than the smallest normal number. */
static void T(check_capped)(const T(block) * x, real cap, T(worst) worst[2])
{
    real got[D(BLOCK)], slopes[D(BLOCK)];
    for (int i = 0; i < D(BLOCK); i += LANES) {
        vec slope;
        V(store)(got + i, T(capped)(V(load)(x->x + i), V(set1)(cap), &slope));
        V(store)(slopes + i, slope);
    }
    for (int i = 0; i < D(BLOCK); ++i) {
        const D(wide) u = (D(wide))x->x[i] / (D(wide))cap, size = u < 0 ? -u : u;
        const D(wide) cosh_u = D(wide_cosh)(u), slope = 1 / cosh_u / cosh_u;
        const double scale = size < D(MIN_NORMAL) ? (double)(size / D(MIN_NORMAL)) : 1;
        const double error = T(error)(x->x[i] < 0 ? -got[i] : got[i], cap * D(wide_tanh)(size)) * scale;
        const double slope_error = T(error)(slopes[i], slope), allowed = 4 * (1 + (double)size);
        ABOUT("x = %a, c = %a: capped is %a, %.3f eps off, its slope is %a, %.3f eps off", (double)x->x[i], (double)cap,
              (double)got[i], error, (double)slopes[i], slope_error);
        CHECK(error <= 4);
        CHECK(slope_error <= allowed || (slope < 8 * D(MIN_NORMAL) && slopes[i] == 0));
        T(note_worst)(worst, error, 4, x->x[i], cap);
        if (slope >= 8 * D(MIN_NORMAL)) T(note_worst)(worst + 1, slope_error, allowed, x->x[i], cap);
    }
}

/* x is any real, by steps of the bits; and then at the size of each softcap. */
static void T(test_capped)(void)
{
    static const double caps[] = {1, 30, 50, 0.01, 1.0 / 3, 1e4, 0x1p-100, 0x1p100};
    const D(bits) infinity = T(bits_of)((real)INFINITY);
    const int points = (sizeof(real) == sizeof(float) ? 150000 : 60000) / THINNED / D(BLOCK) * D(BLOCK);
    T(worst) worst[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    for (int c = 0; c < 8; ++c)
        for (int k = 0; k < points; k += D(BLOCK)) {
            T(block) x;
            for (int i = 0; i < D(BLOCK); ++i)
                x.x[i] = (i % 2 ? 1 : -1) * T(of_bits)((D(bits))((double)infinity * 0.9999 * (k + i) / points));
            T(check_capped)(&x, (real)caps[c], worst);
            for (int i = 0; i < D(BLOCK); ++i)
                x.x[i] = (real)(caps[c] * (i % 2 ? 2 : k % 3 ? 12 : T(depth)()) * random_between(-1, 1));
            T(check_capped)(&x, (real)caps[c], worst);
        }
    for (int i = 0; i < 2; ++i)
        printf("%s %s %d-bit: at worst %.3f eps, %.3f of what is allowed, at x = %.9g, c = %.9g\n", tally.isa,
               i ? "slope of the softcap" : "softcap", (int)sizeof(real) * 8, worst[i].error, worst[i].ratio,
               worst[i].where, worst[i].row_max);
}

static void T(test_capped_at_the_edges)(void)
{
    static const double caps[] = {1, 30, 0x1p-100, 0x1p100};
    for (int c = 0; c < 4; ++c) {
        const vec cap = V(set1)((real)caps[c]);
        vec slope;
        ABOUT("c = %g", caps[c]);
        CHECK(V(first)(T(capped)(V(set1)(0), cap, &slope)) == 0 && V(first)(slope) == 1);
        CHECK(V(first)(T(capped)(V(set1)((real)INFINITY), cap, &slope)) == (real)INFINITY && V(first)(slope) == 0);
        CHECK(V(first)(T(capped)(V(set1)(-(real)INFINITY), cap, &slope)) == -(real)INFINITY && V(first)(slope) == 0);
        const real of_nan = V(first)(T(capped)(V(set1)((real)NAN), cap, &slope)), slope_of_nan = V(first)(slope);
        CHECK(of_nan != of_nan && slope_of_nan != slope_of_nan);
    }
}

static void T(test_accuracy)(void)
{
    if (D(IS_WIDER)) T(find_worst_maxima)();
    RUN(exp_at_the_edges);
    RUN(exp_tempered_at_the_edges);
    RUN(capped_at_the_edges);
    RUN(exp_shift_of_each_lane);
    if (!D(IS_WIDER)) {
        printf("%s accuracy of %d-bit: skipped, there is no wider type here\n", tally.isa, (int)sizeof(real) * 8);
        return;
    }
    RUN(exp_below_any_maximum);
    RUN(exp_of_dense_arguments);
    RUN(log1p);
    RUN(log);
    RUN(exp_tempered);
    RUN(expm1_below_0);
    RUN(expm1_near_0);
    RUN(capped);
}
