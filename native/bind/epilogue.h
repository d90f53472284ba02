// The epilogue of a single product or convolution, as tests and timing name it.
#pragma once

#include "bind/arrays.h"
#include "runtime/linear/layer.h"

namespace openwork::bind {

// That x has the type that the kernels of these weights read.
void expect_activations(DType x, Type weights);

// For an output of this shape; its last dimension is that of `scale`. Throws std::invalid_argument, also for names that mean nothing.
LinearEpilogue read_epilogue(const GivenReader& given, const Floats1& scale, const std::vector<int64_t>& shape);

}  // namespace openwork::bind
