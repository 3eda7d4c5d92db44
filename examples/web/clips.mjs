/** The clips that come with the page; clips/CREDITS.md says whose photographs they are. */

const ALL = [
  ["mountain-meadow", "A mountain meadow in autumn", "Aitzol Berasategi, CC BY 4.0"],
  ["brushes", "Paint brushes", "Trevor “Freespace”, CC BY 4.0"],
  ["dandelions", "Dandelions in the evening sun", "Clemens Engelhardt, CC0"],
  ["high-peaks", "A path to high peaks", "Aitzol Berasategi, CC BY 4.0"],
  ["fig", "A fig in a red bowl", "Trevor “Freespace”, CC BY 4.0"],
  ["nuthatch", "A nuthatch on a trunk", "Lukas Baubkus, CC BY-SA 3.0"],
  ["sunset", "Sunset over the hills", "Aitzol Berasategi, CC BY 4.0"],
  ["drum-and-wine", "A drum, and a bottle of wine", "Jakub Mede, CC BY 4.0"],
  ["dragonfly", "A dragonfly", "“Bolly”, CC BY-SA 4.0"],
  ["forest-stream", "A stream in the forest", "Aitzol Berasategi, CC BY 4.0"],
  ["clock", "A clock, seen from below", "Peter Nerlich, CC BY-SA 4.0"],
  ["river-bridge", "A bridge over a river", "Sander Klootwijk, CC BY-SA 4.0"],
];

export const CLIPS = ALL.map(([name, title, credit]) => ({ id: name, title, credit, url: `clips/${name}.webm` }));
