/* stamp.h - the body of every kernels_*.c: all templates for both dtypes, and the table. The stamp sets ISA and
 * includes its vector layer first. */
#include "kernels.h"
#include "labels.h"

#include <math.h>

#define STAMP_PASTE_(a, b) a##b
#define STAMP_PASTE(a, b) STAMP_PASTE_(a, b)
#define STAMP_NAME_(isa) #isa
#define STAMP_NAME(isa) STAMP_NAME_(isa)

enum { LANE_KERNEL_CLASSES = 64 }; /* up to so many classes, samples go in lanes and a sample's terms stay in L1 */

#define DTYPE f32
#define HALF_PRECISION 1 /* is computed in float */
#include "template.h"
#undef DTYPE
#undef HALF_PRECISION
#define DTYPE f64
#define HALF_PRECISION 0
#include "template.h"
#undef DTYPE
#undef HALF_PRECISION

const softxent_isa STAMP_PASTE(softxent_kernels_, ISA) = {STAMP_NAME(ISA), STAMP_PASTE(run_f32_, ISA),
                                                          STAMP_PASTE(run_f64_, ISA)};
