// Concatenation as a step of a program.
#include <numeric>

#include "runtime/steps/checks.h"

namespace openwork {

namespace {

using Table = Aligned<uint8_t>;

// One input: the bytes of each of its rows and where they begin in those of y. A row holds the dimensions from the axis on.
struct Piece {
  int value;
  int64_t bytes, offset;
  std::shared_ptr<const Table> table;
};

void check_input(const StepChecks& check, const ConcatSpec& s, size_t i, const Value& y) {
  const std::string role = "input " + std::to_string(i);
  const Value& x = check.value(s.inputs[i], role.c_str(), y.dtype);
  std::vector<int64_t> shape = y.dims;
  check.expect(x.dims.size() == shape.size(), "expected " + role + " of " + std::to_string(shape.size()) +
                                                  " dimensions as y has, found " + shape_text(x.dims) + ".");
  const auto axis = static_cast<size_t>(s.axis);
  check.expect(x.dims[axis] > 0, "expected " + role + " with dimension " + std::to_string(axis) +
                                     " fixed, because it is concatenated, found " + shape_text(x.dims) + ".");
  shape[axis] = x.dims[axis];
  check.same_shape(x, role.c_str(), shape);
}

const Value& check_concat(const StepChecks& check, const Program& program, const ConcatSpec& s) {
  const Value& y = check.value(s.y, "y", {DType::u8, DType::bf16, DType::f32});
  const auto rank = static_cast<int64_t>(y.dims.size());
  check.expect(!s.inputs.empty(), "expected at least one input, found none.");
  check.expect(s.axis >= 0 && s.axis < rank,
               "expected an axis from 0 to " + std::to_string(rank - 1) + ", found " + std::to_string(s.axis) + ".");
  int64_t size = 0;
  for (size_t i = 0; i < s.inputs.size(); ++i) {
    check_input(check, s, i, y);
    size += program.values()[static_cast<size_t>(s.inputs[i])].dims[static_cast<size_t>(s.axis)];
  }
  check.expect(y.dims[static_cast<size_t>(s.axis)] == size, "expected y with " + std::to_string(size) + " in dimension " +
                                                                std::to_string(s.axis) + ", the sum of the inputs', found " +
                                                                shape_text(y.dims) + ".");
  check.expect(s.tables.empty() || s.tables.size() == s.inputs.size(), "expected a table or none for each of the " +
                                                                           std::to_string(s.inputs.size()) + " inputs, found " +
                                                                           std::to_string(s.tables.size()) + ".");
  for (const auto& table : s.tables)
    check.expect(!table || y.dtype == DType::u8,
                 "expected tables only where y is u8, found one for " + std::string(dtype_name(y.dtype)) + ".");
  return y;
}

// The bytes of a row of `value`.
int64_t row_bytes(const Sizes& sizes, int value, int64_t axis, DType dtype) {
  const auto& dims = sizes.dims[static_cast<size_t>(value)];
  return std::accumulate(dims.begin() + axis, dims.end(), dtype_bytes(dtype), std::multiplies<>());
}

}  // namespace

void Program::concat(const std::string& name, const ConcatSpec& s) {
  const StepChecks check(*this, name, "concat");
  const DType dtype = check_concat(check, *this, s).dtype;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < s.inputs.size(); ++i) {
    pieces.push_back({s.inputs[i], 0, 0, nullptr});
    if (s.tables.empty() || !s.tables[i]) continue;
    pieces.back().table = std::make_shared<const Table>(s.tables[i]->begin(), s.tables[i]->end());
  }

  add_step({name, {s.inputs.begin(), s.inputs.end()}, {s.y}, [this, pieces, dtype, y = s.y, axis = s.axis](const Sizes& sizes) {
    const int64_t stride = row_bytes(sizes, y, axis, dtype);
    auto placed = pieces;
    int64_t offset = 0;
    for (Piece& piece : placed) {
      piece.bytes = row_bytes(sizes, piece.value, axis, dtype);
      piece.offset = offset;
      offset += piece.bytes;
    }
    Work work;
    work.units = sizes.elements(y) * dtype_bytes(dtype) / stride;
    work.chunk = even_chunk(work.units, sizes.threads);
    work.run = [this, placed, stride, y](const Buffers& b, const Part& part) {
      for (const Piece& piece : placed)
        table_.copy_rows({b.get<const uint8_t>(piece.value), piece.bytes, piece.table ? piece.table->data() : nullptr,
                          b.get<uint8_t>(y) + piece.offset, stride},
                         part.begin, part.end);
    };
    return work;
  }});
}

}  // namespace openwork
