// Concatenation as a step of a program.
#include <numeric>

#include "runtime/steps/copy.h"

namespace openwork {

namespace {

using Table = Aligned<uint8_t>;

// One input: the bytes of each of its rows, from one to the next, and where they begin in those of y. A row holds the dimensions
// from the axis on.
struct Piece {
  int value;
  std::shared_ptr<const Table> table;
  int64_t bytes = 0, stride = 0, offset = 0;
};

// The inputs have the shape of y but for the axis, along which they are fixed and as long as y together.
void check_shapes(const StepContext& c, const std::vector<Operand>& inputs, const Operand& y, size_t axis) {
  std::vector<int64_t> whole = y.dims();
  whole[axis] = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string role = inputs.size() == 1 ? "x" : "x[" + std::to_string(i) + "]";
    const auto& dims = inputs[i].dims();
    c.expect(dims.size() == whole.size(), "expected " + role + " of " + std::to_string(whole.size()) +
                                              " dimensions as y has, found " + shape_text(dims) + ".");
    c.expect(dims[axis] > 0, "expected " + role + " with dimension " + std::to_string(axis) +
                                 " fixed, because it is concatenated, found " + shape_text(dims) + ".");
    std::vector<int64_t> own = y.dims();
    own[axis] = dims[axis];
    inputs[i].shaped(own);
    whole[axis] += dims[axis];
  }
  c.expect(y.dims() == whole, "expected y with " + std::to_string(whole[axis]) + " in dimension " + std::to_string(axis) +
                                  ", the sum of the inputs', found " + shape_text(y.dims()) + ".");
}

// A table that leaves every byte as it is would cost a look for each.
std::shared_ptr<const Table> table_of(const uint8_t* row) {
  auto table = std::make_shared<Table>(row, row + 256);
  Table same(256);
  std::iota(same.begin(), same.end(), uint8_t{0});
  return *table == same ? nullptr : table;
}

std::vector<Piece> make_pieces(const StepContext& c, const std::vector<Operand>& inputs) {
  const bool tables = c.has("tables");
  c.expect(!tables || inputs[0].dtype() == DType::u8,
           "expected tables only where x is u8, found them for " + std::string(dtype_name(inputs[0].dtype())) + ".");
  const auto count = static_cast<int64_t>(inputs.size());
  const uint8_t* row = tables ? c.tensor("tables", {DType::u8}, {count, 256}).get<uint8_t>() : nullptr;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < inputs.size(); ++i) pieces.push_back({inputs[i].id, row ? table_of(row + 256 * i) : nullptr});
  return pieces;
}

// Those that what makes them may put into the rows of y itself.
std::vector<RowPiece> unchanged(const StepContext& c, const std::vector<Piece>& pieces) {
  std::vector<RowPiece> found;
  int64_t offset = 0;
  for (const Piece& piece : pieces) {
    const Value& value = c.program().values()[static_cast<size_t>(piece.value)];
    if (!piece.table) found.push_back({piece.value, offset});
    offset += value.dims.back() * dtype_bytes(value.dtype);
  }
  return found;
}

// The pieces that are left to copy.
std::vector<Piece> copied(std::vector<Piece> pieces, const Sizes& sizes, int y, int64_t axis, DType dtype) {
  int64_t offset = 0;
  for (Piece& piece : pieces) {
    piece.bytes = row_bytes(sizes, piece.value, axis, dtype);
    piece.stride = sizes.lies_inside(piece.value) ? sizes.stride(piece.value) * dtype_bytes(dtype) : piece.bytes;
    piece.offset = offset;
    offset += piece.bytes;
  }
  std::erase_if(pieces, [&](const Piece& piece) { return !piece.table && sizes.lies_at(piece.value, y, piece.offset); });
  return pieces;
}

}  // namespace

Step make_concat(const StepContext& c) {
  const Operand y = c.output("y", {DType::u8, DType::bf16, DType::f32});
  const auto inputs = c.inputs("x", {y.dtype()});
  const int64_t axis = c.integer("axis").within(0, static_cast<int64_t>(y.dims().size()) - 1);
  check_shapes(c, inputs, y, static_cast<size_t>(axis));
  const auto pieces = make_pieces(c, inputs);
  const bool last = axis + 1 == static_cast<int64_t>(y.dims().size());
  std::vector<Read> reads;
  for (const Operand& input : inputs) reads.emplace_back(input.id, false, false, last);

  Step step{c.name(), reads, {y.id}, [&table = c.table(), pieces, dtype = y.dtype(), y = y.id, axis](const Sizes& sizes) {
    const int64_t bytes = row_bytes(sizes, y, axis, dtype);
    const int64_t stride = sizes.lies_inside(y) ? sizes.stride(y) * dtype_bytes(dtype) : bytes;
    const auto left = copied(pieces, sizes, y, axis, dtype);
    Work work;
    work.units = left.empty() ? 0 : sizes.elements(y) * dtype_bytes(dtype) / bytes;
    work.chunk = even_chunk(work.units, sizes.threads);
    work.run = [&table, left, stride, y](const Buffers& b, const Part& part) {
      for (const Piece& piece : left)
        table.copy_rows({b.get<const uint8_t>(piece.value), piece.bytes, piece.stride, piece.table ? piece.table->data() : nullptr,
                         b.get<uint8_t>(y) + piece.offset, stride},
                        part.begin, part.end);
    };
    return work;
  }};
  step.strided = last;
  step.apart = axis > 1;
  if (last) step.pieces = unchanged(c, pieces);
  return step;
}

}  // namespace openwork
