/** What the two models say without a key. Gemini likes to talk; the model at home is brief. */
const answers: readonly { readonly about: RegExp; readonly gemini: string; readonly ollama: string }[] = [
  {
    about: /\bsky\b|\bblue\b/i,
    gemini:
      'Sunlight looks white, but it is a mix of all colours. When it enters the air, it meets molecules that are far smaller than its waves. They scatter blue light about five times as strongly as red. So blue reaches your eyes from every direction, and the whole sky seems to glow. In the evening the light travels so far through the air that the blue is used up on the way. What is left is red and gold.',
    ollama:
      'Air scatters blue light much more than red light. That is why blue comes at you from everywhere. At sunset the path through the air is longer, so you mostly see the red that is left.',
  },
  {
    about: /\begg/i,
    gemini:
      'It depends on how you like the yolk. Lower the egg into water that is already boiling, straight from the fridge. Six minutes give you a runny yolk, eight minutes a jammy one, and after eleven it is firm all the way through. Then put it under cold water for a minute, so it stops cooking and peels easily. Shall I set a timer for you?',
    ollama:
      'Six minutes for soft, eight for jammy, eleven for hard. Start when the water boils. Cool the egg in cold water afterwards, and the shell comes off without a fight.',
  },
  {
    about: /wine|stain/i,
    gemini:
      'Be quick, but do not rub! First blot up as much as you can with a clean cloth, from the edge towards the middle. Then cover the spot with salt and let it sit for five minutes; it draws the wine out. Rinse with cold water, never with hot, because heat sets the colour. If there is still a shadow, a little washing-up liquid and white vinegar will take care of it.',
    ollama:
      'Blot it, do not rub. Put salt on it for five minutes and rinse with cold water. For what is left, use white vinegar with a drop of washing-up liquid.',
  },
  {
    about: /sleep|tired|awake/i,
    gemini:
      'Let us try something gentle. Lie down and let your shoulders sink. Breathe in through your nose while you count to four. Hold it, and count to seven. Now breathe out slowly through your mouth, and count to eight. Do that four times, and think of nothing but the numbers. If thoughts come, let them pass like boats on a river. Good night.',
    ollama:
      'Breathe in for four, hold for seven, breathe out for eight. Do it four times. Keep the room cool and dark, and put the phone away once I have stopped talking.',
  },
  {
    about: /toast|speech|birthday|wedding/i,
    gemini:
      'Keep it under a minute, and begin with a moment that only you could tell. You might say: “The first time I met Sam, he was carrying a sofa up four flights of stairs, for somebody he had known a week. Nothing has changed since. Whenever one of us needs a hand, Sam is already on the stairs.” Then raise your glass, look at Sam, and say: “To the person who always carries the heavy end!”',
    ollama:
      'Tell one short story, say what it shows about the person, and raise your glass. For example: “Sam once carried my sofa up four floors. He is still carrying us all. To Sam!”',
  },
  {
    about: /wi-?fi|internet|router|network/i,
    gemini:
      'That is annoying. Let us find out where it goes wrong. Does it drop on all your devices, or on one only? If it is all of them, unplug the router, wait for thirty seconds, and plug it in again. If it is only one, forget the network on that device and join it anew. Often it is simply the place: a router wants to stand high and free, away from the microwave. Try that, and tell me how it went.',
    ollama:
      'Restart the router first: unplug it, wait thirty seconds, plug it in. If only one device drops, let it forget the network and join again. Keep the router away from the microwave.',
  },
]

const unknown = {
  gemini: (question: string): string =>
    `You asked me: “${question}” That is a good question, and I wish I could do it justice. But I am only a simulated Gemini, and know half a dozen answers by heart. Ask me why the sky is blue, how long to boil an egg, or how to fall asleep. With a key for the Gemini API, the real model answers here.`,
  ollama: (question: string): string =>
    `You asked: “${question}” I am a simulated Ollama and know only a few answers. Try the sky, the egg or the red wine stain.`,
}

export function simulatedAnswer(provider: 'gemini' | 'ollama', question: string): string {
  return answers.find(({ about }) => about.test(question))?.[provider] ?? unknown[provider](question)
}
