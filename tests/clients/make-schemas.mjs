// Writes schemas.json: 300 schemas that quern-server must enforce, and those it must refuse.
// Run it with node after a change, and commit both.
// Most are made by combining parts systematically; the rest are written by hand, after what people really send.
import { writeFileSync } from 'node:fs';

const valid = [], refused = [];
const add = (name, schema) => valid.push({ name, schema });
const refuse = (name, pointer, schema) => refused.push({ name, pointer, schema });

const strings = {
  plain: { type: 'string', maxLength: 20 },
  short: { type: 'string', maxLength: 5 },
  atLeast: { type: 'string', minLength: 3, maxLength: 12 },
  exact: { type: 'string', minLength: 4, maxLength: 4 },
  empty: { type: 'string', maxLength: 0 },
  code: { type: 'string', pattern: '^[A-Z]{3}-[0-9]{2,4}$' },
  search: { type: 'string', pattern: 'cat|dog', maxLength: 12 },
  prefix: { type: 'string', pattern: '^ab', maxLength: 8 },
  suffix: { type: 'string', pattern: 'xyz$', maxLength: 8 },
  words: { type: 'string', pattern: '^\\w+( \\w+){0,3}$', maxLength: 24 },
  hex: { type: 'string', pattern: '^#(?:[0-9a-f]{3}){1,2}$' },
  semver: { type: 'string', pattern: '^(0|[1-9]\\d{0,3})\\.(0|[1-9]\\d{0,3})\\.(0|[1-9]\\d{0,3})$' },
  phone: { type: 'string', pattern: '^\\+?[0-9]{1,3}([ -]?[0-9]{2,4}){2,3}$' },
  negated: { type: 'string', pattern: '^[^a-z"\\\\]{1,6}$' },
  unicode: { type: 'string', pattern: '^[\\u00e0-\\u00ff\\u4e00-\\u9fa5]{1,5}$' },
  astral: { type: 'string', pattern: '^[\\u{1F600}-\\u{1F64F}]{1,3}$' },
  dotted: { type: 'string', pattern: '^a.b.c$' },
  control: { type: 'string', pattern: '^[\\t\\n"\\\\]{1,4}$' },
  optional: { type: 'string', pattern: '^(yes|no|maybe)?$' },
  date: { type: 'string', format: 'date' },
  time: { type: 'string', format: 'time' },
  moment: { type: 'string', format: 'date-time' },
  uuid: { type: 'string', format: 'uuid' },
  email: { type: 'string', format: 'email', maxLength: 30 },
  ipv4: { type: 'string', format: 'ipv4' },
  uri: { type: 'string', format: 'uri', maxLength: 30 },
  yearDate: { type: 'string', format: 'date', pattern: '^20' },
};
const numbers = {
  integer: { type: 'integer' },
  positive: { type: 'integer', minimum: 1 },
  percent: { type: 'integer', minimum: 0, maximum: 100 },
  negative: { type: 'integer', exclusiveMaximum: 0 },
  band: { type: 'integer', minimum: -37, maximum: 1402 },
  one: { type: 'integer', minimum: 7, maximum: 7 },
  halves: { type: 'integer', minimum: 0.5, maximum: 9.5 },
  large: { type: 'integer', minimum: 9007199254740000, maximum: 9007199254740991 },
  number: { type: 'number' },
  fraction: { type: 'number', minimum: 0, maximum: 1 },
  open: { type: 'number', exclusiveMinimum: 0, exclusiveMaximum: 1 },
  price: { type: 'number', minimum: 0 },
  latitude: { type: 'number', minimum: -90, maximum: 90 },
  below: { type: 'number', exclusiveMaximum: -3 },
  around: { type: 'number', exclusiveMinimum: -2, maximum: 5 },
};
const others = {
  flag: { type: 'boolean' },
  nothing: { type: 'null' },
  colour: { enum: ['red', 'green', 'blue'] },
  mixed: { enum: [1, 'one', null, true, [1, 2], { a: 1 }] },
  fixed: { const: 'always' },
  fixedObject: { const: { b: [1, { c: null }], a: 'x "quoted" \\ \n' } },
  typedEnum: { type: 'string', enum: ['ä', 'Ω', '日本', '😀', '"', '\\', '\n'] },
  maybeText: { type: ['string', 'null'], maxLength: 6 },
  several: { type: ['integer', 'boolean', 'null'] },
  either: { anyOf: [{ type: 'integer', minimum: 0, maximum: 9 }, { type: 'string', maxLength: 3 }] },
  exclusive: { oneOf: [{ type: 'boolean' }, { type: 'string', maxLength: 4 }, { type: 'null' }] },
};
const scalars = { ...strings, ...numbers, ...others };

// Each part by itself, as an array's item, and as a member.
for (const [name, schema] of Object.entries(scalars)) {
  add(name, schema);
  add(`${name} list`, { type: 'array', items: schema, minItems: 1, maxItems: 2 });
  add(`${name} member`, { type: 'object', properties: { value: schema }, required: ['value'], additionalProperties: false });
}
// Pairs: one required, one optional; a tuple; a union.
const keys = Object.keys(scalars);
for (let i = 0; i < 30; i++) {
  const a = keys[(7 * i) % keys.length], b = keys[(11 * i + 5) % keys.length], c = keys[(13 * i + 3) % keys.length];
  add(`${a}, ${b}, ${c}`, {
    type: 'object', properties: { first: scalars[a], second: scalars[b], third: scalars[c] },
    required: i % 3 === 0 ? ['third', 'first'] : i % 3 === 1 ? ['second'] : [], additionalProperties: false,
  });
  if (i < 12) add(`[${a}, ${b}]`, { type: 'array', prefixItems: [scalars[a], scalars[b]], items: i % 2 ? false : scalars[c],
    minItems: i % 3, maxItems: 3 });
  if (i < 10) add(`${a} | ${b}`, { anyOf: [scalars[a], scalars[b]] });
}
// Counts.
for (const [min, max] of [[0, 0], [0, 1], [1, 1], [2, 4], [3, 3], [0, 3], [5, 7]]) {
  add(`${min} to ${max} flags`, { type: 'array', items: { type: 'boolean' }, minItems: min, maxItems: max });
  add(`${min} to ${max} characters`, { type: 'string', minLength: min, maxLength: max });
}
// Objects open to more members.
add('open object', { type: 'object', properties: { a: { type: 'integer' }, b: { type: 'string', maxLength: 3 } }, required: ['a'],
  additionalProperties: { type: 'boolean' } });
add('map of integers', { type: 'object', additionalProperties: { type: 'integer' } });
add('names by pattern', { type: 'object', patternProperties: { '^x_': { type: 'integer' },
  '_s$': { type: 'string', maxLength: 3 } }, additionalProperties: false });
add('declared and by pattern', { type: 'object', properties: { x_a: { type: 'integer', minimum: 3 } },
  patternProperties: { '^x_': { type: 'integer' } }, required: ['x_a'], additionalProperties: { type: 'null' } });
add('required, not declared', { type: 'object', required: ['id'], additionalProperties: { type: 'integer' } });
add('names to escape', { type: 'object', properties: { 'a"b': { type: 'integer' }, 'c\\d': { type: 'integer' },
  'é\n': { type: 'null' } }, required: ['a"b', 'c\\d', 'é\n'], additionalProperties: false });
add('empty', { type: 'object', additionalProperties: false });
add('empty list', { type: 'array', items: false });
add('optional only', { type: 'object', properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 }, d: { const: 4 } },
  additionalProperties: false });
// References and recursion.
const node = { type: 'object', properties: { value: { type: 'integer', minimum: 0, maximum: 9 },
  next: { anyOf: [{ type: 'null' }, { $ref: '#/$defs/node' }] } }, required: ['value', 'next'], additionalProperties: false };
add('linked list', { $defs: { node }, $ref: '#/$defs/node' });
add('tree', { type: 'object', properties: { name: { type: 'string', maxLength: 4 },
  children: { type: 'array', items: { $ref: '#' }, maxItems: 2 } }, required: ['name'], additionalProperties: false });
add('definitions', { definitions: { 'a/b': { type: 'integer' }, 'c~d': { $ref: '#/definitions/a~1b' } }, type: 'array',
  items: { $ref: '#/definitions/c~0d' }, maxItems: 3 });
add('shared', { $defs: { short: { type: 'string', maxLength: 3 } }, type: 'object',
  properties: { a: { $ref: '#/$defs/short' }, b: { $ref: '#/$defs/short', minLength: 1 } }, required: ['a', 'b'],
  additionalProperties: false });
add('into properties', { type: 'object', properties: { a: { type: 'boolean' }, b: { $ref: '#/properties/a' } }, required: ['b'],
  additionalProperties: false });
add('expression', {
  $defs: { term: { anyOf: [{ type: 'integer', minimum: 0, maximum: 99 }, { $ref: '#/$defs/sum' }] },
    sum: { type: 'object', properties: { op: { enum: ['+', '-'] },
    args: { type: 'array', items: { $ref: '#/$defs/term' }, minItems: 2, maxItems: 2 } }, required: ['op', 'args'],
    additionalProperties: false } },
  $ref: '#/$defs/sum',
});
// Combining.
add('allOf', { allOf: [{ type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] },
  { type: 'object', properties: { b: { type: 'boolean' } }, required: ['b'] }], additionalProperties: true,
  properties: { c: false } });
add('allOf narrows', { allOf: [{ type: 'integer', minimum: 10 }, { maximum: 20 }, { exclusiveMaximum: 20 }] });
add('allOf strings', { allOf: [{ type: 'string', pattern: '^a' }, { pattern: 'b$' }, { maxLength: 6, minLength: 4 }] });
add('allOf with enum', { allOf: [{ enum: [1, 2, 3, 'x'] }, { type: 'integer' }, { minimum: 2 }] });
add('anyOf beside properties', { type: 'object', properties: { a: { type: 'integer' }, b: { type: 'boolean' } },
  anyOf: [{ required: ['a'] }, { required: ['b'] }], additionalProperties: false });
add('nested anyOf', { anyOf: [{ anyOf: [{ const: 1 }, { const: 2 }] },
  { allOf: [{ type: 'string' }, { anyOf: [{ const: 'x' }, { maxLength: 1 }] }] }] });
const shape = (kind, more) => ({ type: 'object', properties: { kind: { const: kind }, ...more },
  required: ['kind', ...Object.keys(more)], additionalProperties: false });
add('tagged oneOf', { oneOf: [shape('circle', { r: numbers.percent }), shape('square', { side: numbers.positive }),
  shape('label', { text: strings.short })] });
add('tagged anyOf list',
  { type: 'array', items: { anyOf: [shape('a', { x: numbers.percent }), shape('b', { y: strings.short })] }, minItems: 1,
  maxItems: 3 });
add('oneOf by range', { oneOf: [{ type: 'integer', maximum: 3 }, { type: 'integer', minimum: 10, maximum: 12 }] });
add('oneOf by required', { type: 'object', properties: { a: { type: 'integer' }, b: { type: 'integer' } },
  additionalProperties: false, oneOf: [{ required: ['a'], properties: { b: false } },
  { required: ['b'], properties: { a: false } }] });
add('oneOf by pattern', { type: 'string', maxLength: 6, oneOf: [{ pattern: '^[a-c]+$' }, { pattern: '^[0-9]+$' }] });
// By hand: what applications send.
add('weather', { $schema: 'https://json-schema.org/draft/2020-12/schema', type: 'object', title: 'Weather',
  description: 'Where and when', properties: { city: { type: 'string', description: 'The city', maxLength: 20,
  examples: ['Paris'] }, unit: { type: 'string', enum: ['celsius', 'fahrenheit'], default: 'celsius' },
  days: { type: 'integer', minimum: 1, maximum: 14 } }, required: ['city', 'unit'], additionalProperties: false });
add('person', { type: 'object', properties: { name: { type: 'string', minLength: 1, maxLength: 20 },
  age: { type: 'integer', minimum: 0, maximum: 150 }, email: strings.email,
  tags: { type: 'array', items: strings.short, maxItems: 3 } }, required: ['name', 'age'], additionalProperties: false });
add('invoice', { $defs: { money: { type: 'object', properties: {
  amount: { type: 'number', minimum: 0 }, currency: { type: 'string', pattern: '^[A-Z]{3}$' } },
required: ['amount', 'currency'], additionalProperties: false } }, type: 'object', properties: {
  id: { type: 'string', format: 'uuid' }, date: { type: 'string', format: 'date' },
  lines: { type: 'array', items: { type: 'object', properties: { text: strings.short, price: { $ref: '#/$defs/money' } },
    required: ['text', 'price'], additionalProperties: false }, minItems: 1, maxItems: 2 },
  total: { $ref: '#/$defs/money' } },
required: ['id', 'date', 'lines', 'total'], additionalProperties: false });
add('reasoning', { type: 'object', properties: {
  steps: { type: 'array', items: { type: 'object', properties: {
    explanation: { type: 'string', maxLength: 15 }, output: { type: 'string', maxLength: 10 } },
  required: ['explanation', 'output'], additionalProperties: false }, maxItems: 2 },
  final_answer: { type: 'string', maxLength: 10 } }, required: ['steps', 'final_answer'], additionalProperties: false });
add('classification', { type: 'object', properties: { label: { enum: ['spam', 'ham'] },
  confidence: { type: 'number', minimum: 0, maximum: 1 } }, required: ['label', 'confidence'], additionalProperties: false });
add('chess move', { type: 'string', pattern: '^([KQRBN]?[a-h]?[1-8]?x?[a-h][1-8](=[QRBN])?|O-O(-O)?)[+#]?$' });
add('time table', { type: 'array', prefixItems: [strings.time, strings.date], items: false, minItems: 2 });
add('hosts', { type: 'object', patternProperties: { '^[a-z]{1,5}$': { type: 'string', format: 'ipv4' } },
  additionalProperties: false });
add('unbounded text', { type: 'string' });
add('any object', { type: 'object' });
add('any list', { type: 'array' });
add('anything', {});
add('true', true);
let k = 0; // to the full number: objects of three scalars each, in other combinations
while (valid.length < 300) {
  const [a, b, c] = [keys[k % keys.length], keys[(3 * k + 1) % keys.length], keys[(5 * k + 2) % keys.length]];
  add(`filler ${k}: ${a}, ${b}, ${c}`, { type: 'object', properties: { p: scalars[a],
    q: { type: 'array', items: scalars[b], maxItems: 2 }, r: { anyOf: [scalars[c], { type: 'null' }] } },
    required: k % 2 ? ['p', 'q'] : ['r'], additionalProperties: false });
  k++;
}
valid.length = 300;

refuse('not', '/not', { not: { type: 'string' } });
refuse('if', '/if', { if: { type: 'string' }, then: { maxLength: 3 } });
refuse('multipleOf', '/multipleOf', { type: 'integer', multipleOf: 5 });
refuse('uniqueItems', '/uniqueItems', { type: 'array', items: { type: 'integer' }, uniqueItems: true });
refuse('contains', '/contains', { type: 'array', contains: { type: 'integer' } });
refuse('minProperties', '/minProperties', { type: 'object', minProperties: 1 });
refuse('maxProperties', '/maxProperties', { type: 'object', maxProperties: 1 });
refuse('propertyNames', '/propertyNames', { type: 'object', propertyNames: { maxLength: 3 } });
refuse('dependentRequired', '/dependentRequired', { type: 'object', dependentRequired: { a: ['b'] } });
refuse('unevaluatedProperties', '/unevaluatedProperties', { type: 'object', unevaluatedProperties: false });
refuse('$dynamicRef', '/items/$dynamicRef', { type: 'array', items: { $dynamicRef: '#x' } });
refuse('nested keyword', '/properties/a/items/not', { type: 'object', properties: { a: { type: 'array', items: { not: {} } } } });
refuse('escaped pointer', '/properties/a~1b/multipleOf', { type: 'object', properties: { 'a/b': { multipleOf: 2 } } });
refuse('unknown keyword', '/frobnicate', { type: 'string', frobnicate: 1 });
refuse('unknown format', '/format', { type: 'string', format: 'hostname' });
refuse('unknown type', '/type', { type: 'text' });
refuse('list of items', '/items', { type: 'array', items: [{ type: 'integer' }] });
refuse('lookahead', '/pattern', { type: 'string', pattern: '^(?=a)b' });
refuse('back-reference', '/pattern', { type: 'string', pattern: '^(a)\\1$' });
refuse('broken pattern', '/pattern', { type: 'string', pattern: '(' });
refuse('huge pattern', '/pattern', { type: 'string', pattern: '^((a{1,500}){1,500}){1,500}$' });
refuse('exploding pattern', '/pattern', { type: 'string', pattern: '(.*a.{20})$' });
refuse('remote reference', '/$ref', { $ref: 'https://example.com/schema' });
refuse('dangling reference', '/properties/a/$ref', { type: 'object', properties: { a: { $ref: '#/$defs/none' } } });
refuse('reference to itself', '', { $ref: '#' });
refuse('circle of references', '/$defs/a', { $defs: { a: { $ref: '#/$defs/b' }, b: { anyOf: [{ $ref: '#/$defs/a' }] } },
  $ref: '#/$defs/a' });
refuse('never ends', '', { type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] });
refuse('contradiction', '', { type: 'integer', minimum: 5, maximum: 4 });
refuse('no type left', '', { allOf: [{ type: 'string' }, { type: 'integer' }] });
refuse('false', '', false);
refuse('required but forbidden', '', { type: 'object', properties: { a: {} }, required: ['b'], additionalProperties: false });
refuse('no enum value fits', '', { type: 'string', enum: [1, 2] });
refuse('empty enum', '/enum', { enum: [] });
refuse('overlapping oneOf', '/oneOf', { oneOf: [{ type: 'integer' }, { type: 'number' }] });
refuse('overlapping oneOf of objects', '/oneOf', { oneOf: [{ type: 'object', required: ['a'] },
  { type: 'object', required: ['b'] }] });
refuse('fractional bound', '/minimum', { type: 'number', minimum: 0.5 });
refuse('draft-04 exclusiveMinimum', '/exclusiveMinimum', { type: 'integer', minimum: 1, exclusiveMinimum: true });
refuse('a number as a schema', '/properties/a', { type: 'object', properties: { a: 5 } });

const lines = (list) => list.map((entry) => `    ${JSON.stringify(entry)}`).join(',\n');
writeFileSync(new URL('schemas.json', import.meta.url),
  `{\n  "valid": [\n${lines(valid)}\n  ],\n  "refused": [\n${lines(refused)}\n  ]\n}\n`);
console.log(`${valid.length} to enforce, ${refused.length} to refuse`);
