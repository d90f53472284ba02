#include "runtime/dtype.h"

#include <iterator>
#include <stdexcept>

namespace openwork {

namespace {

struct DTypeInfo {
  const char* name;
  int64_t bytes;
};
constexpr DTypeInfo kDTypes[] = {{"u8", 1}, {"bf16", 2}, {"f32", 4}, {"i64", 8}};

}  // namespace

const char* dtype_name(DType dtype) { return kDTypes[static_cast<int>(dtype)].name; }
int64_t dtype_bytes(DType dtype) { return kDTypes[static_cast<int>(dtype)].bytes; }

DType dtype_named(const std::string& name) {
  for (size_t i = 0; i < std::size(kDTypes); ++i)
    if (name == kDTypes[i].name) return static_cast<DType>(i);
  throw std::invalid_argument("Expected a type out of u8, bf16, f32 and i64, found \"" + name + "\".");
}

std::string dtype_names(DTypes dtypes) {
  std::string names;
  for (const DType* dtype = dtypes.begin(); dtype != dtypes.end(); ++dtype)
    names += (names.empty() ? "" : dtype + 1 == dtypes.end() ? " or " : ", ") + std::string(dtype_name(*dtype));
  return names;
}

std::string shape_text(const std::vector<int64_t>& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i) text += ", ";
    text += dims[i] < 0 ? "free " + std::to_string(-1 - dims[i]) : std::to_string(dims[i]);
  }
  return text + "]";
}

}  // namespace openwork
