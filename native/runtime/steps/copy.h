// What the steps that only move whole rows of bytes share.
#pragma once

#include "runtime/steps/context.h"

namespace openwork {

// The bytes of the dimensions of a value from `axis` on.
int64_t row_bytes(const Sizes& sizes, int value, int64_t axis, DType dtype);

// All bytes of x to y, in parts.
Work copy_all(const KernelTable& table, const Sizes& sizes, int x, int y, DType dtype);

}  // namespace openwork
