// From the text of a module to functions and instructions: operands become registers, labels become positions.
//
// Reads what LLVM's NVPTX back end writes for our kernels, the inline assembly of kernels included.
#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "text.hpp"
#include "warps.hpp"

namespace emulator {

namespace {

const std::map<std::string, Type> TYPES{
    {"pred", Type::PREDICATE}, {"b8", Type::B8},   {"b16", Type::B16}, {"b32", Type::B32},       {"b64", Type::B64},
    {"u8", Type::U8},          {"u16", Type::U16}, {"u32", Type::U32}, {"u64", Type::U64},       {"s8", Type::S8},
    {"s16", Type::S16},        {"s32", Type::S32}, {"s64", Type::S64}, {"f16", Type::F16},       {"bf16", Type::BF16},
    {"f16x2", Type::F16X2},    {"f32", Type::F32}, {"f64", Type::F64}, {"bf16x2", Type::BF16X2},
};

const std::array SPECIALS{"%tid.", "%ctaid.", "%nctaid.", "%ntid.", "%laneid", "%warpid"};

class Parser {
 public:
  Module read(const std::string& text) {
    Words statements = statements_of(text);
    for (const std::string& statement : statements) {
      if (begins_with(statement, ".shared") || begins_with(statement, ".extern .shared")) declare_shared(statement);
    }
    place_launch_memory();
    for (const std::string& statement : statements) read_statement(statement);
    for (auto& [instruction, labels] : jumps_) {
      for (const std::string& label : labels) module_.code[instruction].targets.push_back(position_of(label));
    }
    for (const Instruction& each : module_.code) {
      if (each.callee >= 0 && module_.functions[each.callee].start < 0)
        refuse("call of what is not here: " + each.text);
    }
    return std::move(module_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) { throw Fault("PTX that is not emulated: " + what); }

  void read_statement(const std::string& statement) {
    std::string first = words_of(statement)[0];
    if (first == ".pragma" || first == ".shared" || first == ".extern") return;  // hints; what is known by now
    if (first[0] == '.' && (statement.find(".entry") < 20 || statement.find(".func") < 20)) {
      read_header(statement);
    } else if (first == ".param") {
      for (const Parameter& each : parameters_of(statement)) place_parameter(function_, each);
    } else if (first == ".reg") {  // names with % are known by that; inline assembly has others
      for (const std::string& each : operands_of(statement)) {
        std::string name = words_of(each).back();
        if (name[0] != '%') registers_[scoped(name)] = module_.registers++;
      }
    } else if (first == ".branchtargets") {
      tables_[scoped(label_)] = operands_of(statement.substr(first.size()));
    } else if (statement.back() == ':') {
      label_ = statement.substr(0, statement.size() - 1);
      labels_[scoped(label_)] = static_cast<int>(module_.code.size());
    } else if (first[0] == '.') {
      refuse(statement);
    } else {
      read_instruction(statement);
    }
  }

  // .visible .entry name(parameters) .maxntid 128   or   .func (returns) name(parameters)
  void read_header(const std::string& statement) {
    bool is_entry = statement.find(".entry") < 20;
    std::string rest = trimmed(statement.substr(statement.find(is_entry ? ".entry" : ".func") + (is_entry ? 6 : 5)));
    std::string returns, parameters;
    if (rest[0] == '(') {
      returns = rest.substr(1, rest.find(')') - 1);
      rest = trimmed(rest.substr(rest.find(')') + 1));
    }
    size_t list = rest.find('(');
    std::string name = words_of(rest.substr(0, list))[0];
    if (list != std::string::npos) parameters = rest.substr(list + 1, rest.rfind(')') - list - 1);
    function_ = module_.function_named.try_emplace(name, static_cast<int>(module_.functions.size())).first->second;
    if (function_ == static_cast<int>(module_.functions.size())) module_.functions.emplace_back();
    Function& function = module_.functions[function_];
    if (function.name.empty()) {  // else it was declared before, and calls know its parameters by now
      function = {name, is_entry, -1, 0, parameters_of(parameters), parameters_of(returns)};
      for (const Parameter& each : function.returns) place_parameter(function_, each);
      for (const Parameter& each : function.parameters) {
        if (!is_entry) place_parameter(function_, each);
      }
    }
    if (statement.back() != '{') return;  // a declaration
    function.start = static_cast<int>(module_.code.size());
    if (size_t at = rest.find(".maxntid"); at != std::string::npos) {
      function.most_threads = 1;
      for (const std::string& length : operands_of(rest.substr(at + 8, rest.find_first_of("\n{", at) - at - 8))) {
        function.most_threads *= std::stoi(length);
      }
    }
  }

  // .param .align 8 .b8 name[80], .param .b64 name
  std::vector<Parameter> parameters_of(const std::string& list) {
    std::vector<Parameter> parameters;
    int end = 0;
    for (const std::string& declaration : operands_of(list)) {
      auto [name, align, bytes] = declared(declaration);
      end = (end + align - 1) / align * align;
      parameters.push_back({name, end, bytes});
      end += bytes;
    }
    return parameters;
  }

  struct Declared {
    std::string name;
    int align, bytes;
  };

  static Declared declared(const std::string& declaration) {
    int align = 0, bytes = 1;
    Words words = words_of(declaration);
    for (size_t k = 0; k + 1 < words.size(); ++k) {
      if (words[k] == ".align") align = std::stoi(words[k + 1]);
      if (Type type = type_named(words[k].substr(1)); type != Type::NONE) bytes = size_of(type);
    }
    std::string name = words.back();
    size_t bracket = name.find('[');
    int elements = 1;
    if (bracket != std::string::npos) elements = name[bracket + 1] == ']' ? 0 : std::stoi(name.substr(bracket + 1));
    return {name.substr(0, bracket), align != 0 ? align : bytes, bytes * elements};
  }

  void declare_shared(const std::string& statement) {
    auto [name, align, bytes] = declared(statement);
    if (bytes == 0) {
      launch_memory_.push_back(name);  // as much as the launch says
      return;
    }
    module_.shared_bytes = (module_.shared_bytes + align - 1) / align * align;
    shared_[name] = module_.shared_bytes;
    module_.shared_bytes += bytes;
  }

  void place_launch_memory() {
    if (launch_memory_.empty()) return;
    module_.shared_bytes = (module_.shared_bytes + 127) / 128 * 128;
    for (const std::string& name : launch_memory_) shared_[name] = module_.shared_bytes;
  }

  // Gives a parameter a place of its own; a name that comes again, with another call, stands for the new place.
  void place_parameter(int function, const Parameter& parameter) {
    module_.parameter_bytes = (module_.parameter_bytes + 15) / 16 * 16;
    parameters_[scoped(parameter.name, function)] = module_.parameter_bytes;
    module_.parameter_bytes += parameter.bytes;
  }

  std::string scoped(const std::string& name, int function) { return std::to_string(function) + "/" + name; }
  std::string scoped(const std::string& name) { return scoped(name, function_); }

  int parameter_place(const std::string& name, int function) {
    auto found = parameters_.find(scoped(name, function));
    if (found == parameters_.end()) refuse("parameter " + name);
    return found->second;
  }

  int position_of(const std::string& label) {
    auto found = labels_.find(label);
    if (found == labels_.end()) refuse("label " + label);
    return found->second;
  }

  int constant(uint64_t value) {
    auto [place, is_new] = constants_.try_emplace(value, module_.registers);
    if (is_new) module_.constants.emplace_back(module_.registers++, value);
    return place->second;
  }

  // The register of an operand: a register, a number, or the address of an array in shared memory.
  int register_of(const std::string& operand) {
    if (operand == "_") return -1;
    if (operand.find('|') != std::string::npos) refuse("two results in " + operand);
    if (auto declared = registers_.find(scoped(operand)); declared != registers_.end()) return declared->second;
    if (operand[0] == '%') {
      registers_[scoped(operand)] = module_.registers;
      bool is_special =
          std::any_of(SPECIALS.begin(), SPECIALS.end(), [&](const char* name) { return begins_with(operand, name); });
      if (is_special) module_.specials.emplace_back(module_.registers, operand);
      return module_.registers++;
    }
    char kind = operand.size() > 2 && operand[0] == '0' ? static_cast<char>(std::tolower(operand[1])) : ' ';
    if (kind == 'f' || kind == 'd') return constant(std::stoull(operand.substr(2), nullptr, 16));
    if (operand[0] == '-') return constant(static_cast<uint64_t>(std::stoll(operand, nullptr, 0)));
    if (std::isdigit(static_cast<unsigned char>(operand[0])) != 0) return constant(std::stoull(operand, nullptr, 0));
    auto array = shared_.find(operand);
    if (array == shared_.end()) refuse("operand " + operand);
    return constant(array->second);
  }

  // @!%p1 opcode.words operands
  void read_instruction(const std::string& statement) {
    Instruction instruction;
    instruction.text = statement;
    std::string rest = statement;
    if (rest[0] == '@') {
      size_t end = rest.find_first_of(" \t");
      instruction.is_negated = rest[1] == '!';
      instruction.predicate =
          register_of(rest.substr(instruction.is_negated ? 2 : 1, end - (instruction.is_negated ? 2 : 1)));
      rest = trimmed(rest.substr(end));
    }
    size_t end = rest.find_first_of(" \t\n");
    Words opcode = opcode_of(rest.substr(0, end));
    Words operands = end == std::string::npos ? Words{} : operands_of(rest.substr(end));
    if (!read_control(opcode, operands, instruction)) {
      bool is_entry_parameter = read_operands(opcode, operands, instruction);
      for (const std::string& word : opcode) {  // the last type is that of the operands
        Type type = type_named(word);
        if (type == Type::NONE) continue;
        instruction.size = size_of(type);
        instruction.is_signed = type >= Type::S8 && type <= Type::S64;
      }
      instruction.run = memory_access(opcode, is_entry_parameter);
      if (instruction.run == nullptr) {
        instruction.run = warp_wide(opcode);
        instruction.flow = instruction.run == nullptr ? Flow::NEXT : Flow::WARP;
        bool names_lanes = opcode[0] == "shfl" || opcode[0] == "bar";
        instruction.members = names_lanes ? instruction.from[instruction.operands - 1] : constant(ALL_LANES);
      }
      if (instruction.run == nullptr) instruction.run = arithmetic(opcode, instruction);
      if (instruction.run == nullptr) refuse(statement);
    }
    if (instruction.predicate >= 0 && (instruction.flow == Flow::BARRIER || instruction.flow == Flow::SWITCH)) {
      refuse(statement);
    }
    module_.code.push_back(std::move(instruction));
  }

  bool read_control(const Words& opcode, const Words& operands, Instruction& instruction) {
    int position = static_cast<int>(module_.code.size());
    if (opcode[0] == "bra") {
      instruction.flow = Flow::BRANCH;
      jumps_.emplace_back(position, Words{scoped(operands[0])});
    } else if (opcode[0] == "brx") {
      instruction.flow = Flow::SWITCH;
      instruction.from[0] = register_of(operands[0]);
      Words labels;
      for (const std::string& label : tables_[scoped(operands[1])]) labels.push_back(scoped(label));
      jumps_.emplace_back(position, labels);
    } else if (opcode[0] == "call") {
      instruction.flow = Flow::CALL;
      read_call(operands, instruction);
    } else if (opcode[0] == "ret" || opcode[0] == "exit") {
      instruction.flow = Flow::RETURN;
    } else if (opcode[0] == "bar" && opcode[1] == "sync" && operands[0] == "0" && operands.size() == 1) {
      instruction.flow = Flow::BARRIER;
    } else {
      return false;
    }
    return true;
  }

  // call (returned), name, (arguments)
  void read_call(const Words& operands, Instruction& instruction) {
    bool has_returns = operands[0][0] == '(';
    auto found = module_.function_named.find(operands[has_returns ? 1 : 0]);
    if (found == module_.function_named.end()) refuse(instruction.text);
    instruction.callee = found->second;
    const Function& callee = module_.functions[instruction.callee];
    auto places = [&](const Words& here, const std::vector<Parameter>& there, bool is_return) {
      std::vector<Move> moves;
      for (size_t k = 0; k < here.size(); ++k) {
        int outer = parameter_place(here[k], function_), inner = parameter_place(there[k].name, instruction.callee);
        moves.push_back({is_return ? inner : outer, is_return ? outer : inner, there[k].bytes});
      }
      return moves;
    };
    if (has_returns) instruction.returns = places(operands_of(without_brackets(operands[0])), callee.returns, true);
    size_t list = has_returns ? 2 : 1;
    if (operands.size() > list) {
      instruction.arguments = places(operands_of(without_brackets(operands[list])), callee.parameters, false);
    }
  }

  // Fills results, the first operand of most instructions, and operands. Tells whether the address is a kernel's
  // parameter.
  bool read_operands(const Words& opcode, const Words& operands, Instruction& instruction) {
    static const std::array NO_RESULT{"st", "cp", "bar", "prefetch", "griddepcontrol"};
    bool has_result = std::find(NO_RESULT.begin(), NO_RESULT.end(), opcode[0]) == NO_RESULT.end();
    bool is_entry_parameter = false;
    int addresses = 0;
    for (size_t k = 0; k < operands.size(); ++k) {
      const std::string& operand = operands[k];
      bool is_vector = operand[0] == '{';
      if (operand[0] == '[') {
        std::string inside = without_brackets(operand);
        size_t plus = inside.find('+');
        std::string base = trimmed(inside.substr(0, plus));
        int64_t offset = plus == std::string::npos ? 0 : std::stoll(inside.substr(plus + 1), nullptr, 0);
        if (has(opcode, "param") || has(opcode, "param::entry") || has(opcode, "param::func")) {
          std::optional<int> place = entry_parameter(base);
          is_entry_parameter = place.has_value();
          offset += place ? *place : parameter_place(base, function_);
          base = "0";
        }
        instruction.offset.at(addresses++) = offset;
        instruction.from.at(instruction.operands++) = register_of(base);
        continue;
      }
      for (const std::string& each : is_vector ? operands_of(without_brackets(operand)) : Words{operand}) {
        if (k == 0 && has_result) {
          instruction.to.at(instruction.results++) = register_of(each);
        } else {
          instruction.from.at(instruction.operands++) = register_of(each);
        }
      }
    }
    return is_entry_parameter;
  }

  std::optional<int> entry_parameter(const std::string& name) {
    const Function& function = module_.functions[function_];
    for (const Parameter& each : function.parameters) {
      if (function.is_entry && each.name == name) return each.offset;
    }
    return std::nullopt;
  }

  Module module_;
  int function_ = -1;  // the one that is being read
  std::string label_;  // the last one
  std::map<std::string, int> registers_, labels_, parameters_, shared_;
  std::map<uint64_t, int> constants_;
  std::map<std::string, Words> tables_;  // of jumps by index
  std::vector<std::pair<int, Words>> jumps_;
  Words launch_memory_;
};

}  // namespace

Type type_named(const std::string& name) {
  auto found = TYPES.find(name);
  return found == TYPES.end() ? Type::NONE : found->second;
}

int size_of(Type type) {
  switch (type) {
    case Type::PREDICATE:
    case Type::B8:
    case Type::U8:
    case Type::S8:
      return 1;
    case Type::B16:
    case Type::U16:
    case Type::S16:
    case Type::F16:
    case Type::BF16:
      return 2;
    case Type::B64:
    case Type::U64:
    case Type::S64:
    case Type::F64:
      return 8;
    default:
      return 4;
  }
}

bool has(const Words& words, const char* word) { return std::find(words.begin(), words.end(), word) != words.end(); }

Module parse(const std::string& text) { return Parser().read(text); }

}  // namespace emulator
