// The embedding sum as a step of a program.
#include <algorithm>

#include "runtime/steps/context.h"

namespace openwork {

namespace {

// The kernel indexes the tables without a look, so every id of a run is looked at first.
struct Ids {
  int value;
  int64_t rows;  // of their table

  void check(const Program& program, const Place& place, const int64_t* ids, int64_t length, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) {
      if (ids[i] >= 0 && ids[i] < rows) continue;
      const auto& inputs = program.inputs();
      const auto input = std::find(inputs.begin(), inputs.end(), value) - inputs.begin();
      place.fail("expected ids from 0 to " + std::to_string(rows - 1) + " in input " + std::to_string(input) +
                 ", because its table has " + std::to_string(rows) + " rows, found " + std::to_string(ids[i]) + " at [" +
                 std::to_string(i / length) + ", " + std::to_string(i % length) + "].");
    }
  }
};

Tensor table_of(const StepContext& c, const char* name, int64_t width) {
  const Tensor& table = c.tensor(name, {DType::f32});
  c.expect(table.shape.size() == 2 && table.shape[0] > 0 && table.shape[1] == width,
           "expected " + std::string(name) + " of shape [rows, " + std::to_string(width) + "], found " +
               shape_text(table.shape) + ".");
  return table;
}

}  // namespace

Step make_embedding_sum(const StepContext& c) {
  const Operand ids = c.input("ids", {DType::i64}).ranked(2, "[B, L]");
  const Operand type_ids = c.optional_input("type_ids", {DType::i64}).shaped(ids.dims());
  const Operand behind = c.optional_input("behind", {DType::f32}).ranked(4, "[B, G, S, D]");
  const Operand y = c.output("y", {DType::f32});
  const int64_t width = y.width();
  y.shaped({ids.dims()[0], ids.dims()[1], width});
  c.expect(c.has("type") == bool{type_ids}, "expected type_ids and the table type together or neither.");
  const Tensor word = table_of(c, "word", width), position = table_of(c, "position", width);
  const Tensor type = type_ids ? table_of(c, "type", width) : Tensor{};
  const Ids words{ids.id, word.shape[0]}, types{type_ids.id, type_ids ? type.shape[0] : 0};

  // Positions that count the tokens alone, the first of them behind the padding's row.
  const int64_t padding = c.has("padding_id") ? c.integer("padding_id").within(0, position.shape[0] - 1) : -1;
  c.expect(padding < 0 || !behind, "expected a padding_id only without a past.");

  Read past(behind.id);
  past.may_be_zero = 2;
  Step step{c.name(), {{ids.id, false, true}, {type_ids.id, false, true}, past}, {y.id},
          [&program = c.program(), place = c.place(), word, position, type, words, types, width, y = y.id,
           behind = behind.id, padding](const Sizes& sizes) {
    const int64_t rows = sizes.elements(words.value), length = sizes.width(words.value);
    const int64_t first = padding >= 0 ? padding + 1 : behind == kAbsent ? 0 : sizes.dims[behind][2];
    place.expect(first + length <= position.shape[0], "the length " + std::to_string(first + length) + " exceeds the " +
                                                          std::to_string(position.shape[0]) + " rows of the table of positions.");
    const float* origin = position.get<float>() + (padding >= 0 ? 0 : first) * width;
    const EmbeddingSumArgs fixed{nullptr, nullptr, word.get<float>(), origin, type.get<float>(), length, width, nullptr, padding};
    Work work = make_work(rows, even_chunk(rows, sizes.threads), program.table().embedding_sum, fixed,
                          [words, types, y](EmbeddingSumArgs& a, const Buffers& b, int) {
                            a.ids = b.get<const int64_t>(words.value);
                            a.type_ids = b.get<const int64_t>(types.value);
                            a.y = b.get<float>(y);
                          });
    work.check = [&program, place, words, types, rows, length](const Buffers& b) {
      words.check(program, place, b.get<const int64_t>(words.value), length, rows);
      if (types.value != kAbsent) types.check(program, place, b.get<const int64_t>(types.value), length, rows);
    };
    return work;
  }};
  step.apart = true;
  return step;
}

}  // namespace openwork
