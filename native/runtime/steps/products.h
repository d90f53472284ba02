// What the steps of linear layers and of convolutions share.
#pragma once

#include <vector>

#include "runtime/steps/checks.h"
#include "runtime/linear/layer.h"

namespace openwork {

// That there is a packed weight for every number of rows, and all are for this table.
void check_tactics(const StepChecks& check, const LinearSpec& spec, const KernelTable& table);
// Which of the packed weights runs so many rows.
size_t tactic_for(const std::vector<int64_t>& max_rows, int64_t rows);
// What a product may take to add, and may give.
inline constexpr std::initializer_list<DType> kStoredDTypes = {DType::f32, DType::bf16, DType::u8};
LinearEpilogue make_epilogue(const StepChecks& check, const LinearSpec& spec, const Value& y);

}  // namespace openwork
