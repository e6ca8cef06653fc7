// A question that makes the shipped model call a tool (greedily), and the tool.
export const findMessages = [{ role: 'user', content: 'Find me a Mexican restaurant in San Jose.' }];

export const findParameters = {
  type: 'object',
  properties: {
    city: { type: 'string', description: 'City where the restaurant is located' },
    cuisine: { type: 'string', description: 'Type of food served' },
  },
  required: ['city', 'cuisine'],
};

export const findTool = {
  type: 'function',
  function: { name: 'find_restaurants', description: 'Find restaurants by location and by category', parameters: findParameters },
};
