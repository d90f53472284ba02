// What the float operators take: plain pointers and sizes. Shapes, meaning and order of operations: docs/program.md and
// docs/arithmetic.md.
#pragma once

#include <cstdint>

#include "simd/math.h"

namespace openwork {}  // namespace openwork
