// What the steps of linear layers and of convolutions share.
#pragma once

#include <vector>

#include "runtime/linear/layer.h"
#include "runtime/steps/context.h"

namespace openwork {

// What a product may take to add, and may give.
inline constexpr DTypes kStoredDTypes = {DType::f32, DType::bf16, DType::u8};

// The largest number of rows of each of the weights.
std::vector<int64_t> max_rows(const std::vector<PackedTactic>& weights);
// Which of them runs so many rows.
size_t tactic_for(const std::vector<int64_t>& max_rows, int64_t rows);

// Of a product with weights of n output channels and this type. `found_in_runs`: the scale and the zero point of x are a value of the
// program.
LinearEpilogue make_epilogue(const StepContext& context, const PackedWeights& weights, const Operand& y, const Operand& residual,
                             bool found_in_runs = false);

}  // namespace openwork
