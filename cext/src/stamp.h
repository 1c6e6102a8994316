/* stamp.h - the body of every kernels_*.c: all templates for both dtypes, and the table. The stamp first sets ISA and
 * includes its vector layer. */
#include "kernels.h"
#include "labels.h"

#include <float.h>
#include <math.h>

/* Every operation must be rounded once, to its own type. What compilers report of this depends on their flags and not
 * on a pragma. gcc reports the effect of a pragma in __SSE2_MATH__, and clang always uses SSE2 where it is on.
 * FLT_EVAL_METHOD is 16 where the processor has half-precision arithmetic, and has no fixed value with -ffast-math. */
#if defined(__i386__) && (defined(__clang__) || defined(__SSE2_MATH__))
#elif defined(_MSC_VER) || defined(__FAST_MATH__)
#elif FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#  error "softxent needs float and double computed in their own precision: on x86, compile with -msse2 -mfpmath=sse"
#endif

#define STAMP_PASTE_(a, b) a##b
#define STAMP_PASTE(a, b) STAMP_PASTE_(a, b)
#define STAMP_NAME_(isa) #isa
#define STAMP_NAME(isa) STAMP_NAME_(isa)

#define DTYPE f32
#define HALF_PRECISION 1 /* halves are computed in float */
#include "templates/template.h"
#undef DTYPE
#undef HALF_PRECISION
#define DTYPE f64
#define HALF_PRECISION 0
#include "templates/template.h"
#undef DTYPE
#undef HALF_PRECISION

const softxent_isa STAMP_PASTE(softxent_kernels_, ISA) = {STAMP_NAME(ISA), STAMP_PASTE(run_f32_, ISA),
                                                          STAMP_PASTE(run_f64_, ISA)};
