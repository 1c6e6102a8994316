/* dispatch.h - which instruction sets can run here, and which one does. Public functions are in softxent.h. */
#ifndef SOFTXENT_DISPATCH_H
#define SOFTXENT_DISPATCH_H

#include "kernels.h"

/* The kernels called `name` if this build has them and this machine can run them, else NULL. */
const softxent_isa *softxent_dispatch_find(const char *name);

#endif
