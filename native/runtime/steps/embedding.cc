// The embedding sum as a step of a program.
#include <algorithm>

#include "runtime/steps/checks.h"

namespace openwork {

namespace {

// The kernel indexes the tables without a look, so every id of a run is looked at first.
void check_ids(const Program& program, const StepChecks& check, int value, const int64_t* ids, int64_t length, int64_t count,
               int64_t table) {
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] >= 0 && ids[i] < table) continue;
    const auto& inputs = program.inputs();
    const auto input = std::find(inputs.begin(), inputs.end(), value) - inputs.begin();
    check.fail("expected ids from 0 to " + std::to_string(table - 1) + " in input " + std::to_string(input) +
               ", because its table has " + std::to_string(table) + " rows, found " + std::to_string(ids[i]) + " at [" +
               std::to_string(i / length) + ", " + std::to_string(i % length) + "].");
  }
}

void check_tables(const StepChecks& check, const EmbeddingSumSpec& s, int64_t width) {
  const auto table = [&](const FloatTensor& t, const char* role) {
    check.expect(t.shape.size() == 2 && t.shape[0] > 0 && t.shape[1] == width,
                 "expected " + std::string(role) + " of shape [rows, " + std::to_string(width) + "], found " +
                     shape_text(t.shape) + ".");
  };
  table(s.word, "word");
  table(s.position, "position");
  check.expect(static_cast<bool>(s.type) == (s.type_ids != kAbsent), "expected type_ids and the table type together or neither.");
  if (s.type) table(s.type, "type");
}

}  // namespace

void Program::embedding_sum(const std::string& name, const EmbeddingSumSpec& s) {
  const StepChecks check(*this, name, "embedding_sum");
  const Value& ids = check.value(s.ids, "ids", DType::i64);
  const Value& y = check.value(s.y, "y", DType::f32);
  check.expect(ids.dims.size() == 2, "expected ids of shape [B, L], found " + shape_text(ids.dims) + ".");
  if (s.type_ids != kAbsent) check.same_shape(check.value(s.type_ids, "type_ids", DType::i64), "type_ids", ids.dims);
  const int64_t width = check.width(y, "y");
  check.same_shape(y, "y", {ids.dims[0], ids.dims[1], width});
  check_tables(check, s, width);

  add_step({name, {{s.ids, false, true}, {s.type_ids, false, true}}, {s.y}, [this, check, s, width](const Sizes& sizes) {
    const int64_t rows = sizes.elements(s.ids), length = sizes.width(s.ids);
    check.expect(length <= s.position.shape[0], "the length " + std::to_string(length) + " exceeds the " +
                                                    std::to_string(s.position.shape[0]) + " rows of the table of positions.");
    EmbeddingSumArgs fixed{nullptr, nullptr, s.word.data, s.position.data, s.type.data, length, width, nullptr};
    Work work = make_work(rows, even_chunk(rows, sizes.threads), table_.embedding_sum, fixed,
                          [s](EmbeddingSumArgs& a, const Buffers& b, int) {
                            a.ids = b.get<const int64_t>(s.ids);
                            a.type_ids = b.get<const int64_t>(s.type_ids);
                            a.y = b.get<float>(s.y);
                          });
    work.check = [this, check, s, rows, length](const Buffers& b) {
      check_ids(*this, check, s.ids, b.get<const int64_t>(s.ids), length, rows, s.word.shape[0]);
      if (s.type) check_ids(*this, check, s.type_ids, b.get<const int64_t>(s.type_ids), length, rows, s.type.shape[0]);
    };
    return work;
  }});
}

}  // namespace openwork
