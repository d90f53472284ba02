// The types of values, and shapes as messages say them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace openwork {

enum class DType { u8, bf16, f32, i64 };
const char* dtype_name(DType dtype);
DType dtype_named(const std::string& name);  // throws std::invalid_argument
int64_t dtype_bytes(DType dtype);

using DTypes = std::initializer_list<DType>;
// "f32, bf16 or u8".
std::string dtype_names(DTypes dtypes);

// -1 - s stands for the free dimension s.
std::string shape_text(const std::vector<int64_t>& dims);

}  // namespace openwork
