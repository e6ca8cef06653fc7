/* ARMv8.2-A with the dot product instructions: Neoverse N1 (Graviton 2, Ampere Altra), Cortex-A76 (Raspberry Pi 5) and later.
 *
 * Instructions for 256 multiply-adds (16 SDOT), by gcc 12: Q4_K 80 for one token, 32 for 64; Q6_K 112 and 36.
 * scripts/count-instructions.py counts them. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

#include "kernels/arm/sdot.h"

enum { TILE_QUARTERS = 2 };
#define FEW_TOKENS 3
#define TILE_TOKENS 4
#include "kernels/arm/matmul.h"

const struct kernels kernels_dotprod = {.level = "dotprod", .cheap_rows = 2, LANES_KERNELS};
